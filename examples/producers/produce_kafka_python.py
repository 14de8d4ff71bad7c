"""Lines of `user<TAB>event` from standard input to Kafka: python produce_kafka_python.py host:port topic."""

import sys

from kafka import KafkaProducer

producer = KafkaProducer(bootstrap_servers=sys.argv[1], acks="all", linger_ms=10)
failed = []
for line in sys.stdin:
    user, event = line.rstrip("\n").split("\t", 1)
    sent = producer.send(sys.argv[2], key=user.encode(), value=event.encode())  # the default partitioner is murmur2
    sent.add_errback(failed.append)
producer.flush()
sys.exit(f"{len(failed)} not delivered: {failed[0]}" if failed else 0)
