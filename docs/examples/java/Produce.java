import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import com.rabbitmq.client.AMQP;
import com.rabbitmq.client.Channel;
import com.rabbitmq.client.Connection;
import com.rabbitmq.client.ConnectionFactory;
import com.rabbitmq.client.Delivery;
import com.rabbitmq.client.PossibleAuthenticationFailureException;
import com.rabbitmq.client.ShutdownSignalException;
import java.io.IOException;
import java.net.URISyntaxException;
import java.util.ArrayList;
import java.util.Date;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import java.util.concurrent.ArrayBlockingQueue;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.concurrent.atomic.AtomicBoolean;

/**
 * Sends kf-worker one command so that it can't get lost, and with --wait shows its result.
 *
 * <pre>
 * Produce add test1@test 客服1 --id hire-4711 --revision 1 --wait
 * Produce delete test1@test --id leave-4711 --revision 2
 * </pre>
 *
 * AMQP_URL names the broker, KF_PREFIX the first part of the exchanges' names (kf).
 * Exit code: 0 confirmed (with --wait: succeeded), 1 not so, 2 wrong arguments, 69 the broker can't be reached.
 */
public final class Produce {
    private static final String AMQP_URL = environment("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/%2f");
    private static final String PREFIX = environment("KF_PREFIX", "kf");
    private static final ObjectMapper JSON = new ObjectMapper();

    public static void main(String[] args) throws Exception {
        try {
            System.exit(run(Arguments.read(args)));
        } catch (Failure failure) {
            System.err.println(failure.getMessage());
            System.exit(failure.exitCode);
        }
    }

    private static int run(Arguments arguments) throws Exception {
        byte[] reply = send(arguments);
        if (!arguments.wait) {
            String line = JSON.createObjectNode().put("command_id", arguments.id).put("confirmed", true).toString();
            System.out.println(arguments.json ? line : arguments.id + "  confirmed");
            return 0;
        }
        JsonNode event = JSON.readTree(reply);
        JsonNode data = event.path("data");
        System.out.println(arguments.json ? event.toString() : inWords(data));
        return data.path("status").asText().equals("succeeded") ? 0 : 1;
    }

    /** Returns once the broker has the command safely; with --wait once the worker has answered too, its result. */
    private static byte[] send(Arguments arguments) throws Exception {
        ConnectionFactory factory = new ConnectionFactory();
        Connection connection = connect(factory);
        try {
            Channel channel = connection.createChannel();
            // Without confirms a command that the broker loses is lost in silence.
            channel.confirmSelect();
            AtomicBoolean returned = new AtomicBoolean();
            channel.addReturnListener((code, text, exchange, key, properties, body) -> returned.set(true));
            AMQP.BasicProperties.Builder properties = new AMQP.BasicProperties.Builder()
                .contentType("application/json")
                .deliveryMode(2) // persistent
                .messageId(arguments.id)
                // RabbitMQ checks it against the login, so that the worker's [[publisher]] rules can rest on it.
                .userId(factory.getUsername())
                // A real producer gives the time of the event in its own books, the same at each try.
                .timestamp(new Date())
                .headers(traceHeaders());
            BlockingQueue<Delivery> replies = new ArrayBlockingQueue<>(10);
            if (arguments.wait) {
                properties.correlationId(arguments.id).replyTo(replyQueue(channel, replies));
            }
            // The account as routing key keeps its commands in order; mandatory makes a command that no queue takes come back.
            byte[] body = JSON.writeValueAsBytes(arguments.command());
            channel.basicPublish(PREFIX + ".commands", arguments.kfAccount(), true, properties.build(), body);
            // A broker that is out of memory or disk confirms nothing: better to fail then than to hang.
            if (!channel.waitForConfirms(30_000)) {
                throw new IOException("nack");
            }
            if (returned.get()) {
                throw new Failure("No queue takes commands for the prefix " + PREFIX
                    + ": start the worker once, which declares it, or set KF_PREFIX.");
            }
            return arguments.wait ? result(replies, arguments) : null;
        } catch (IOException | TimeoutException | ShutdownSignalException error) {
            throw explained(error, arguments.id);
        } finally {
            // Ends in any case: a broker that takes nothing would not answer a farewell either.
            connection.abort(5_000);
        }
    }

    private static Connection connect(ConnectionFactory factory) throws Exception {
        // One command is sent and that is all: no connection comes back behind our back.
        factory.setAutomaticRecoveryEnabled(false);
        try {
            factory.setUri(AMQP_URL);
        } catch (URISyntaxException | RuntimeException error) {
            throw new Failure("AMQP_URL is not of the form amqp://user:password@host:5672/vhost (%2f is the vhost /).", 2);
        }
        try {
            return factory.newConnection("kf producer");
        } catch (PossibleAuthenticationFailureException error) {
            throw new Failure("The broker refused the login: check user, password and vhost in AMQP_URL.");
        } catch (IOException | TimeoutException error) {
            if (error.getCause() instanceof ShutdownSignalException) {
                throw new Failure("The broker refused the login: check user, password and vhost in AMQP_URL.");
            }
            String place = factory.getHost() + ":" + factory.getPort();
            throw new Failure("The broker can't be reached (" + place + "), and nothing was sent: check AMQP_URL.", 69);
        }
    }

    /** Made before the command is sent, so that no answer can come too early; gone with the connection. */
    private static String replyQueue(Channel channel, BlockingQueue<Delivery> replies) throws IOException {
        // A name that begins with `kf.` would be the worker's own, and is ignored.
        String queue = PREFIX + "-replies-" + UUID.randomUUID();
        channel.queueDeclare(queue, false, true, true, null);
        // This queue ends with the connection, so that an acknowledgement would save nothing.
        channel.basicConsume(queue, true, (tag, delivery) -> replies.offer(delivery), tag -> { });
        return queue;
    }

    private static byte[] result(BlockingQueue<Delivery> replies, Arguments arguments) throws Exception {
        Delivery reply = replies.poll(arguments.timeoutSeconds * 1000, TimeUnit.MILLISECONDS);
        if (reply == null) {
            throw new Failure("The broker has the command, but nothing came within " + arguments.timeoutSeconds + " s. Its result goes to "
                + PREFIX + ".events too. Send " + arguments.id + " again with the same id and content to be told.");
        }
        return reply.getBody();
    }

    private static Failure explained(Exception error, String id) {
        Throwable cause = error instanceof ShutdownSignalException ? error : error.getCause();
        if (cause instanceof ShutdownSignalException signal && signal.getReason() instanceof AMQP.Channel.Close refused) {
            return refused.getReplyCode() == 404
                ? new Failure("There is no exchange " + PREFIX + ".commands: start the worker once, which declares it, or set KF_PREFIX.")
                : new Failure("The broker refused it: " + refused.getReplyCode() + " " + refused.getReplyText());
        }
        // Sending it again is safe: where the broker had it after all, the repeat does nothing.
        return new Failure("The broker did not confirm the command (" + error.getClass().getSimpleName() + "). Send " + id
            + " again with the same id and content.");
    }

    /** Continues the caller's trace; a tracing library would inject the same header. */
    private static Map<String, Object> traceHeaders() {
        String traceparent = System.getenv("TRACEPARENT");
        return traceparent == null ? Map.of() : Map.of("traceparent", traceparent);
    }

    /** {@code hire-4711  add test1@test  succeeded  created}; what could not be read is left out of a result. */
    private static String inWords(JsonNode data) {
        JsonNode error = data.path("error");
        String why = error.isObject() ? error.path("reason").asText() + ": " + error.path("detail").asText() : data.path("effect").asText();
        return data.path("command_id").asText() + "  " + data.path("action").asText("?") + " " + data.path("kf_account").asText("?") + "  "
            + data.path("status").asText() + "  " + why;
    }

    private static String environment(String name, String otherwise) {
        return System.getenv().getOrDefault(name, otherwise);
    }

    /** What went wrong, in a sentence that says what to do; never with AMQP_URL, which holds a password. */
    private static final class Failure extends RuntimeException {
        private static final long serialVersionUID = 1;
        final int exitCode;

        Failure(String sentence, int exitCode) {
            super(sentence);
            this.exitCode = exitCode;
        }

        Failure(String sentence) {
            this(sentence, 1);
        }
    }

    private static final class Arguments {
        private static final String USAGE = "usage: add KF_ACCOUNT NICKNAME --id ID | delete KF_ACCOUNT --id ID\n"
            + "       [--revision N] [--meta JSON] [--wait] [--timeout SECONDS] [--json]";

        final List<String> words = new ArrayList<>();
        final ObjectNode optional = JSON.createObjectNode();
        String id;
        boolean wait;
        boolean json;
        long timeoutSeconds = 60;

        static Arguments read(String[] args) {
            Arguments read = new Arguments();
            try {
                for (int i = 0; i < args.length; i++) {
                    switch (args[i]) {
                        case "--id" -> read.id = args[++i];
                        case "--revision" -> read.optional.put("revision", Long.parseLong(args[++i]));
                        case "--meta" -> read.optional.set("meta", JSON.readTree(args[++i]));
                        case "--timeout" -> read.timeoutSeconds = Long.parseLong(args[++i]);
                        case "--wait" -> read.wait = true;
                        case "--json" -> read.json = true;
                        default -> read.words.add(args[i]);
                    }
                }
            } catch (ArrayIndexOutOfBoundsException | NumberFormatException | IOException error) {
                throw new Failure(USAGE, 2);
            }
            String action = read.words.isEmpty() ? "" : read.words.get(0);
            boolean complete = (action.equals("add") && read.words.size() == 3) || (action.equals("delete") && read.words.size() == 2);
            if (!complete || read.id == null) {
                throw new Failure(USAGE, 2);
            }
            return read;
        }

        String kfAccount() {
            return words.get(1);
        }

        /** Fields that were not given are left out: null is not the same, and the worker refuses unknown ones. */
        ObjectNode command() {
            ObjectNode command = JSON.createObjectNode().put("command_id", id).put("action", words.get(0)).put("kf_account", kfAccount());
            if (words.size() == 3) {
                command.put("nickname", words.get(2));
            }
            return command.setAll(optional);
        }
    }
}
