// Lines of user<TAB>event from standard input to Kafka: java -cp 'kafka/libs/*' ProduceEvents.java host:port topic
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.Map;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.StringSerializer;

public class ProduceEvents {
    public static void main(String[] args) throws Exception {
        Map<String, Object> settings = Map.of("bootstrap.servers", args[0], "acks", "all");
        var text = new StringSerializer();
        var lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        try (var producer = new KafkaProducer<String, String>(settings, text, text)) {
            for (String line; (line = lines.readLine()) != null; ) {
                String[] parts = line.split("\t", 2); // the default partitioner is murmur2 of the key
                producer.send(new ProducerRecord<>(args[1], parts[0], parts[1]), (sent, error) -> {
                    if (error != null) {
                        error.printStackTrace();
                        Runtime.getRuntime().halt(1);
                    }
                });
            }
        }
    }
}
