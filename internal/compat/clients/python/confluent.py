"""confluent-kafka (librdkafka) behind the driver protocol of package compat."""
import sys

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

import events


def security(asked):
    settings = {"security.protocol": asked.security().lower()}
    if asked.ca:
        settings["ssl.ca.location"] = asked.ca
    if asked.mechanism:
        settings |= {"sasl.mechanisms": asked.mechanism, "sasl.username": asked.user, "sasl.password": asked.password}
    return settings


def create(asked):
    admin = AdminClient({"bootstrap.servers": asked.bootstrap, **security(asked)})
    for made in admin.create_topics([NewTopic(asked.topic, asked.partitions, asked.replicas)]).values():
        made.result(20)


def produce(asked):
    producer = Producer({"bootstrap.servers": asked.bootstrap, **security(asked), "compression.type": asked.codec, "linger.ms": 50,
                         "enable.idempotence": True})
    failed = []
    for key in asked.keys():
        producer.produce(asked.topic, key=key, value=events.VALUE, on_delivery=lambda error, _: error and failed.append(error))
    if producer.flush(20) or failed:
        sys.exit("not delivered: %s" % failed[:1])


def settings(asked):
    if asked.protocol == "consumer":  # The coordinator has the session timeout and the heartbeat interval.
        timing = {"group.protocol": "consumer"}
    else:
        timing = {"session.timeout.ms": 6000, "heartbeat.interval.ms": 500}
    return {**timing, "bootstrap.servers": asked.bootstrap, **security(asked), "group.id": getattr(asked, "group", "none"), "enable.auto.commit": False,
            "auto.offset.reset": "earliest", "fetch.wait.max.ms": 500, "client.rack": asked.rack}


def records(consumer, wait):
    """Tells of the record that arrives within the time, if one does."""
    message = consumer.poll(wait)
    if message is None:
        return
    if message.error():
        raise KafkaException(message.error())
    events.record(message.partition(), message.offset(), message.key())
    yield message


def commit(consumer):
    try:
        consumer.commit(asynchronous=False)
    except KafkaException as error:  # Nothing new, or a rebalance under way: the next commit covers it.
        if error.args[0].code() != KafkaError._NO_OFFSET:
            print("commit:", error, file=sys.stderr)


def consume(asked):
    ending = events.Ending()
    consumer = Consumer(settings(asked))
    mine = set()

    def assign(_, assigned):
        if asked.protocol != "consumer":  # Only the consumer protocol tells of what comes on top.
            mine.clear()
        mine.update(tp.partition for tp in assigned)
        events.assigned(mine)

    def revoke(_, revoked):
        mine.difference_update(tp.partition for tp in revoked)
        events.assigned(mine)

    consumer.subscribe([asked.topic], on_assign=assign, on_revoke=revoke)
    while not ending:
        if not list(records(consumer, 0.2)):
            commit(consumer)
    commit(consumer)
    consumer.close()


def read(asked):
    consumer = Consumer(settings(asked))
    consumer.assign([TopicPartition(asked.topic, asked.partition, 0)])
    consumer.poll(5)  # It fetches, so that there is something to seek away from.
    consumer.seek(TopicPartition(asked.topic, asked.partition, asked.offset))
    left = asked.count
    while left > 0:
        left -= len(list(records(consumer, 1)))
    consumer.close()


asked = events.Asked(sys.argv)
{"create": create, "produce": produce, "consume": consume, "read": read}[asked.verb](asked)
