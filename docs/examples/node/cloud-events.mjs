#!/usr/bin/env node
// The same commands as CloudEvents 1.0, made and read with the public SDK (`cloudevents`); waits for the result.
//
//   cloud-events.mjs structured add test1@test 客服1 --id hire-4711 --revision 1
//   cloud-events.mjs binary delete test1@test --id leave-4711 --revision 2
//
// Structured: the whole event is the body. Binary: the body is `data`, the rest is in `ce-` headers.
// AMQP_URL, KF_PREFIX and exit codes are those of produce.mjs.

import { CloudEvent, HTTP } from 'cloudevents';
import { Failure, inWords, readArguments, run, send, traceHeaders } from './produce.mjs';

await run(async ([mode, ...args]) => {
  if (mode !== 'structured' && mode !== 'binary') throw new Failure('usage: structured|binary add|delete …', 2);
  const { id, action, fields, timeout, json } = readArguments(args);
  const event = new CloudEvent({
    id,
    type: `kf.${action}`,
    source: '/hr/onboarding',
    datacontenttype: 'application/json',
    data: fields,
    // The SDK sets `time` to now; a real producer gives the time of the event in its own books.
    // The CloudEvents extension for tracing: an attribute, where a plain command has a header.
    ...traceHeaders(),
  });
  // The SDK has no binding for AMQP 0-9-1; HTTP's has the same `ce-` headers, and its content-type is AMQP's property.
  const { headers, body } = HTTP[mode](event);
  const { 'content-type': contentType, ...attributes } = headers;
  const reply = await send({ commandId: id, kfAccount: fields.kf_account, contentType, headers: attributes, body }, timeout);

  const { contentType: replyType, headers: replyHeaders } = reply.properties;
  const result = HTTP.toEvent({ headers: { ...replyHeaders, 'content-type': replyType }, body: reply.content.toString() });
  console.log(json ? JSON.stringify(result) : inWords(result.data));
  return result.data.status === 'succeeded' ? 0 : 1;
});
