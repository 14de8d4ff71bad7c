#!/bin/sh
# Lines of user<TAB>event from standard input to Kafka: sh produce_kcat.sh host:port topic
exec kcat -P -b "$1" -t "$2" -K "$(printf '\t')" -X topic.partitioner=murmur2_random -X acks=all
