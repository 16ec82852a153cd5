"""kafka-python, 2.x and 3.x, behind the driver protocol of package compat."""
import sys

from kafka import ConsumerRebalanceListener, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient, NewTopic
from kafka.errors import KafkaError

import events


def security(asked):
    settings = {"security_protocol": asked.security()}
    if asked.ca:
        settings["ssl_cafile"] = asked.ca
    if asked.mechanism:
        settings |= {"sasl_mechanism": asked.mechanism, "sasl_plain_username": asked.user, "sasl_plain_password": asked.password}
    return settings


def create(asked):
    admin = KafkaAdminClient(bootstrap_servers=asked.bootstrap, **security(asked))
    admin.create_topics([NewTopic(name=asked.topic, num_partitions=asked.partitions, replication_factor=asked.replicas)])
    admin.close()


def produce(asked):
    codec = None if asked.codec == "none" else asked.codec
    producer = KafkaProducer(bootstrap_servers=asked.bootstrap, **security(asked), acks="all", compression_type=codec, linger_ms=50)
    for sent in [producer.send(asked.topic, key=key, value=events.VALUE) for key in asked.keys()]:
        sent.get(timeout=20)
    producer.close()


class Listener(ConsumerRebalanceListener):
    def on_partitions_revoked(self, revoked):
        pass

    def on_partitions_assigned(self, assigned):
        events.assigned(tp.partition for tp in assigned)


def commit(consumer):
    try:
        consumer.commit()
    except KafkaError as error:  # A rebalance under way: the next commit covers it.
        print("commit:", repr(error), file=sys.stderr)


def consume(asked):
    ending = events.Ending()
    settings = {"client_rack": asked.rack} if asked.rack else {}
    consumer = KafkaConsumer(
        bootstrap_servers=asked.bootstrap, **security(asked), group_id=asked.group, auto_offset_reset="earliest", enable_auto_commit=False,
        session_timeout_ms=6000, heartbeat_interval_ms=500, fetch_max_wait_ms=500, **settings)
    consumer.subscribe([asked.topic], listener=Listener())
    while not ending:
        # Version 3.0.12 joins twice at first, the second time because metadata came. If a poll's time runs out within that
        # join, the assignment is lost for good: the leader has noted the new metadata already, so need_rejoin says no, and
        # what SyncGroup brings is never installed. A second is well beyond both joins.
        polled = consumer.poll(timeout_ms=1000)
        for batch in polled.values():
            for r in batch:
                events.record(r.partition, r.offset, r.key)
        if polled:
            commit(consumer)
    commit(consumer)
    consumer.close()


def read(asked):
    consumer = KafkaConsumer(bootstrap_servers=asked.bootstrap, **security(asked), enable_auto_commit=False)
    partition = TopicPartition(asked.topic, asked.partition)
    consumer.assign([partition])
    consumer.seek_to_end(partition)
    consumer.position(partition)
    consumer.seek(partition, asked.offset)
    left = asked.count
    while left > 0:
        for batch in consumer.poll(timeout_ms=500, max_records=left).values():
            for r in batch:
                events.record(r.partition, r.offset, r.key)
                left -= 1
    consumer.close()


asked = events.Asked(sys.argv)
{"create": create, "produce": produce, "consume": consume, "read": read}[asked.verb](asked)
