import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.rabbitmq.client.AMQP;
import com.rabbitmq.client.AuthenticationFailureException;
import com.rabbitmq.client.Channel;
import com.rabbitmq.client.Connection;
import com.rabbitmq.client.ConnectionFactory;
import com.rabbitmq.client.Delivery;
import com.rabbitmq.client.ShutdownSignalException;
import java.io.IOException;
import java.net.URISyntaxException;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.ThreadLocalRandom;

/**
 * Reads kf-worker's results from a queue of its own and prints a line for each.
 *
 * <pre>
 * Consume                      until Ctrl-C
 * Consume --count 3 --json     ends after three results, each as one line of JSON
 * </pre>
 *
 * AMQP_URL names the broker, KF_PREFIX the first part of the exchanges' names (kf).
 * Exit code: 0 after --count results, 1 where the broker refuses, 2 wrong arguments.
 */
public final class Consume {
    private static final String AMQP_URL = System.getenv().getOrDefault("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/%2f");
    private static final String PREFIX = System.getenv().getOrDefault("KF_PREFIX", "kf");
    private static final ObjectMapper JSON = new ObjectMapper();
    /** How often the work for one event may fail before the event is put aside for a person. */
    private static final int TRIES = 3;

    private String queue = PREFIX + "-hr-results";
    private boolean declare = true;
    private boolean json;
    /** How many results are still to be worked on; negative: no end. */
    private long left = -1;
    private long pauseMillis = 1000;

    /**
     * The ids of events whose work is done.
     *
     * <p>A real consumer keeps them in its database, written in the same transaction as the work: only then is an event whose
     * acknowledgement was lost not worked on twice. Here they are forgotten at the end, and the oldest after 10,000.
     */
    private final Set<String> done = Collections.newSetFromMap(new LinkedHashMap<>() {
        @Override
        protected boolean removeEldestEntry(Map.Entry<String, Boolean> eldest) {
            return size() > 10_000;
        }
    });

    public static void main(String[] args) throws Exception {
        Consume consume = new Consume();
        try {
            consume.read(args);
        } catch (ArrayIndexOutOfBoundsException | IllegalArgumentException error) {
            System.err.println("usage: [--queue NAME] [--no-declare] [--count N] [--json]");
            System.exit(2);
        }
        System.exit(consume.run());
    }

    private void read(String[] args) {
        for (int i = 0; i < args.length; i++) {
            switch (args[i]) {
                case "--queue" -> queue = args[++i];
                // The queue is there and bound: an administrator made it.
                case "--no-declare" -> declare = false;
                case "--count" -> left = Long.parseLong(args[++i]);
                case "--json" -> json = true;
                default -> throw new IllegalArgumentException();
            }
        }
    }

    /** One session after another, until {@code --count} results are worked on; 1 where the broker refuses for good. */
    private int run() throws Exception {
        ConnectionFactory factory = new ConnectionFactory();
        try {
            factory.setUri(AMQP_URL);
        } catch (URISyntaxException | RuntimeException error) {
            System.err.println("AMQP_URL is not of the form amqp://user:password@host:5672/vhost (%2f is the vhost /).");
            return 2;
        }
        // The client's own recovery doesn't mend a first connect, a closed channel or a cancelled subscription; the loop mends all.
        factory.setAutomaticRecoveryEnabled(false);
        while (true) {
            try (Connection connection = factory.newConnection("kf consumer")) {
                session(connection.createChannel());
                return 0;
            } catch (AuthenticationFailureException error) {
                System.err.println("The broker refused the login: check user and password in AMQP_URL.");
                return 1;
            } catch (Exception error) {
                AMQP.Channel.Close refused = refusal(error);
                // An exchange that isn't there will be once the worker was; other refusals stay as they are.
                if (refused != null && refused.getReplyCode() != 404) {
                    System.err.println("The broker refused it: " + refused.getReplyCode() + " " + refused.getReplyText());
                    return 1;
                }
                // Spread out, so that consumers that lost the broker together don't come back together.
                long now = ThreadLocalRandom.current().nextLong(pauseMillis / 2, pauseMillis);
                log((refused == null ? "connection or subscription lost (" + error.getClass().getSimpleName() + ")" : refused.getReplyText())
                    + "; again in " + now + " ms");
                Thread.sleep(now);
                pauseMillis = Math.min(pauseMillis * 2, 30_000);
            }
        }
    }

    private static AMQP.Channel.Close refusal(Exception error) {
        Throwable signal = error instanceof ShutdownSignalException ? error : error.getCause();
        return signal instanceof ShutdownSignalException shutdown && shutdown.getReason() instanceof AMQP.Channel.Close close ? close : null;
    }

    /** Returns once {@code --count} is reached; whatever ends the subscription before is thrown. */
    private void session(Channel channel) throws Exception {
        // What was sent to us and isn't acknowledged: bounded, or a long queue would end in our memory.
        channel.basicQos(20);
        if (declare) {
            declareQueue(channel);
        }
        // The work is done here and not on the client's thread. Empty: the subscription has ended.
        BlockingQueue<Optional<Delivery>> inbox = new LinkedBlockingQueue<>();
        channel.addShutdownListener(signal -> inbox.add(Optional.empty()));
        channel.basicConsume(queue, false, (tag, delivery) -> inbox.add(Optional.of(delivery)), tag -> inbox.add(Optional.empty()));
        pauseMillis = 1000;
        log("waiting for results in " + queue);
        while (left != 0) {
            Delivery delivery = inbox.take().orElseThrow(() -> Optional.ofNullable(channel.getCloseReason())
                .<RuntimeException>map(reason -> reason).orElseGet(() -> new IllegalStateException("the broker ended the subscription")));
            String exchange = delivery.getEnvelope().getExchange();
            long tag = delivery.getEnvelope().getDeliveryTag();
            // Whoever names our queue as reply_to has replies put into it, by another exchange.
            if (exchange.equals(PREFIX + ".events") && work(delivery.getBody())) {
                // Only now, when the work is done: an event that was acknowledged before it would die with this program.
                channel.basicAck(tag, false);
            } else {
                log("put aside: " + delivery.getEnvelope().getRoutingKey() + ", from the exchange '" + exchange + "'");
                channel.basicReject(tag, false);
            }
        }
    }

    private void declareQueue(Channel channel) throws IOException {
        String parked = queue + "-parked";
        // Durable and replicated queues, so that results wait for us while we are away. What is put aside goes through an
        // exchange of our own: whoever may write to the default one can write to every queue.
        channel.exchangeDeclare(parked, "fanout", true);
        channel.queueDeclare(parked, true, false, false, Map.of("x-queue-type", "quorum"));
        channel.queueBind(parked, parked, "");
        channel.queueDeclare(queue, true, false, false, Map.of(
            "x-queue-type", "quorum",
            // What we put aside, and an event that ended this program 20 times, goes there and not round and round.
            "x-delivery-limit", 20,
            "x-dead-letter-exchange", parked,
            "x-dead-letter-strategy", "at-least-once",
            "x-overflow", "reject-publish"));
        // `add.*`, `*.failed` or several bindings would choose; # is all.
        channel.queueBind(queue, PREFIX + ".events", "#");
    }

    /** False where the event is to be put aside: sent round again it would only come back, for ever. */
    private boolean work(byte[] body) throws InterruptedException {
        String id;
        String line;
        try {
            JsonNode event = JSON.readTree(body);
            id = event.required("id").textValue();
            Objects.requireNonNull(id);
            String words = inWords(event.required("data"));
            line = json ? event.toString() : id + "  " + words;
        } catch (IOException | RuntimeException error) {
            log("not a result of kf-worker (" + error.getClass().getSimpleName() + ")");
            return false;
        }
        if (done.contains(id)) {
            return true;
        }
        if (!tryToHandle(id, line)) {
            return false;
        }
        done.add(id);
        if (left > 0) {
            left--;
        }
        return true;
    }

    private static boolean tryToHandle(String id, String line) throws InterruptedException {
        for (int failures = 0; failures < TRIES; ) {
            try {
                handle(line);
                return true;
            } catch (IOException error) {
                // What the work needs is away, such as its database: no fault of the event's, so it waits.
                log(id + " waits: " + error.getMessage());
            } catch (RuntimeException error) {
                failures++;
                log(id + " failed " + failures + " of " + TRIES + " times: " + error.getMessage());
            }
            Thread.sleep(2000);
        }
        return false;
    }

    /** The work: yours would write to your books. */
    private static void handle(String line) throws IOException {
        System.out.println(line);
        if (System.out.checkError()) {
            throw new IOException("nobody reads standard output");
        }
    }

    /** {@code add test1@test  succeeded  created}; what could not be read of a wrong command is left out of its result. */
    private static String inWords(JsonNode data) {
        String status = data.required("status").asText();
        JsonNode why = status.equals("succeeded") ? data.required("effect") : data.required("error").required("reason");
        return data.path("action").asText("?") + " " + data.path("kf_account").asText("?") + "  " + status + "  " + why.asText();
    }

    private static void log(String text) {
        System.err.println("consume: " + text);
    }
}
