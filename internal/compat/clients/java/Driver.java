import java.io.PrintStream;
import java.time.Duration;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Properties;
import java.util.TreeSet;
import java.util.concurrent.CountDownLatch;
import java.util.stream.Collectors;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.WakeupException;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/** Apache Kafka's own client behind the driver protocol of package compat. */
public final class Driver {
    private static final String VALUE = "a value that compresses well, well, well, well, well, well, well, well, well";
    private static final PrintStream OUT = System.out;
    private static final Map<String, String> ASKED = new HashMap<>();

    public static void main(String[] arguments) throws Exception {
        for (int i = 1; i < arguments.length; i++) {
            String[] pair = arguments[i].split("=", 2);
            ASKED.put(pair[0], pair[1]);
        }
        switch (arguments[0]) {
            case "create" -> create();
            case "produce" -> produce();
            case "consume" -> consume();
            case "read" -> read();
            case "drain" -> drain();
            default -> throw new IllegalArgumentException("no verb " + arguments[0]);
        }
    }

    private static Properties base() {
        Properties p = new Properties();
        if (ASKED.containsKey("ca")) {
            p.put("ssl.truststore.type", "PEM");
            p.put("ssl.truststore.location", ASKED.get("ca"));
        }
        String protocol = ASKED.containsKey("ca") ? "SSL" : "PLAINTEXT";
        if (ASKED.containsKey("mechanism")) {
            protocol = "SASL_" + protocol;
            String module = ASKED.get("mechanism").equals("PLAIN") ? "plain.PlainLoginModule" : "scram.ScramLoginModule";
            p.put("sasl.mechanism", ASKED.get("mechanism"));
            p.put("sasl.jaas.config", String.format("org.apache.kafka.common.security.%s required username=\"%s\" password=\"%s\";",
                module, ASKED.get("user"), ASKED.get("password")));
        }
        p.put("security.protocol", protocol);
        p.put("bootstrap.servers", ASKED.get("bootstrap"));
        return p;
    }

    private static void create() throws Exception {
        try (Admin admin = Admin.create(base())) {
            NewTopic topic = new NewTopic(ASKED.get("topic"), Integer.parseInt(ASKED.get("partitions")), Short.parseShort(ASKED.get("replicas")));
            admin.createTopics(List.of(topic)).all().get();
        }
    }

    private static void produce() throws Exception {
        Properties p = base();
        p.put("compression.type", ASKED.get("codec"));
        p.put("key.serializer", StringSerializer.class.getName());
        p.put("value.serializer", StringSerializer.class.getName());
        try (KafkaProducer<String, String> producer = new KafkaProducer<>(p)) {
            var sent = new java.util.ArrayList<java.util.concurrent.Future<?>>();
            for (int i = 0; i < Integer.parseInt(ASKED.get("count")); i++) {
                sent.add(producer.send(new ProducerRecord<>(ASKED.get("topic"), String.format("%s-%05d", ASKED.get("codec"), i), VALUE)));
            }
            for (var one : sent) {
                one.get();
            }
        }
    }

    private static KafkaConsumer<String, String> consumer(boolean group) throws Exception {
        Properties p = base();
        if (group) {
            p.put("group.id", ASKED.get("group"));
            p.put("group.protocol", ASKED.getOrDefault("protocol", "classic"));
            if (!"consumer".equals(ASKED.get("protocol"))) {
                p.put("session.timeout.ms", "6000");
                p.put("heartbeat.interval.ms", "500");
            }
            p.put("auto.commit.interval.ms", "500");
        } else {
            p.put("enable.auto.commit", "false");
        }
        p.put("auto.offset.reset", "earliest");
        p.put("client.rack", ASKED.getOrDefault("rack", ""));
        p.put("fetch.max.wait.ms", "500");
        p.put("metadata.max.age.ms", "1000");
        p.put("key.deserializer", StringDeserializer.class.getName());
        p.put("value.deserializer", StringDeserializer.class.getName());
        return new KafkaConsumer<>(p);
    }

    private static void assigned(Collection<TopicPartition> all) {
        String list = all.stream().map(tp -> tp.partition()).sorted().map(String::valueOf).collect(Collectors.joining(","));
        OUT.println("{\"event\":\"assigned\",\"partitions\":[" + list + "]}");
    }

    private static void record(ConsumerRecord<String, String> r) {
        OUT.printf("{\"event\":\"record\",\"partition\":%d,\"offset\":%d,\"key\":\"%s\"}%n", r.partition(), r.offset(), r.key());
    }

    private static void consume() throws Exception {
        KafkaConsumer<String, String> consumer = consumer(true);
        CountDownLatch done = new CountDownLatch(1);
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            consumer.wakeup();
            try {
                done.await();
            } catch (InterruptedException e) {
                Runtime.getRuntime().halt(1);
            }
            Runtime.getRuntime().halt(0);
        }));
        TreeSet<Integer> mine = new TreeSet<>();
        consumer.subscribe(List.of(ASKED.get("topic")), new ConsumerRebalanceListener() {
            public void onPartitionsAssigned(Collection<TopicPartition> more) {
                assigned(consumer.assignment());
            }

            public void onPartitionsRevoked(Collection<TopicPartition> gone) {
                assigned(consumer.assignment().stream().filter(tp -> !gone.contains(tp)).toList());
            }
        });
        try {
            while (true) {
                consumer.poll(Duration.ofMillis(200)).forEach(Driver::record);
            }
        } catch (WakeupException asked) {
            consumer.close();
        } finally {
            OUT.flush();
            done.countDown();
        }
    }

    private static void read() throws Exception {
        TopicPartition tp = new TopicPartition(ASKED.get("topic"), Integer.parseInt(ASKED.get("partition")));
        try (KafkaConsumer<String, String> consumer = consumer(false)) {
            consumer.assign(List.of(tp));
            consumer.seek(tp, Long.parseLong(ASKED.get("offset")));
            int left = Integer.parseInt(ASKED.get("count"));
            while (left > 0) {
                for (var r : consumer.poll(Duration.ofMillis(200))) {
                    if (left-- > 0) {
                        record(r);
                    }
                }
            }
        }
    }

    /** Reads a partition as jobs do that end by themselves: until the position has reached the end offset. */
    private static void drain() throws Exception {
        TopicPartition tp = new TopicPartition(ASKED.get("topic"), Integer.parseInt(ASKED.get("partition")));
        try (KafkaConsumer<String, String> consumer = consumer(false)) {
            consumer.assign(List.of(tp));
            consumer.seekToBeginning(List.of(tp));
            long end = consumer.endOffsets(List.of(tp)).get(tp);
            while (consumer.position(tp) < end) {
                consumer.poll(Duration.ofMillis(200)).forEach(Driver::record);
            }
            System.err.println("position " + consumer.position(tp) + " of " + end);
        }
    }
}
