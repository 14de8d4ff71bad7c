"""Lines of `user<TAB>event` from standard input to Kafka: python produce_confluent_kafka.py host:port topic."""

import sys

from confluent_kafka import Producer

producer = Producer({"bootstrap.servers": sys.argv[1], "partitioner": "murmur2_random"})  # not librdkafka's default
failed = []
for line in sys.stdin:
    user, event = line.rstrip("\n").split("\t", 1)
    while len(producer) >= 50_000:  # of the 100,000 that wait at most
        producer.poll(0.1)
    producer.produce(sys.argv[2], key=user, value=event, on_delivery=lambda error, _: error and failed.append(error))
    producer.poll(0)
producer.flush()
sys.exit(f"{len(failed)} not delivered: {failed[0]}" if failed else 0)
