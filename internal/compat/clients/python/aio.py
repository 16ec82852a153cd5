"""aiokafka behind the driver protocol of package compat."""
import asyncio
import sys

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError

from aiokafka.helpers import create_ssl_context

import events


def security(asked):
    settings = {"security_protocol": asked.security()}
    if asked.ca:
        settings["ssl_context"] = create_ssl_context(cafile=asked.ca)
    if asked.mechanism:
        settings |= {"sasl_mechanism": asked.mechanism, "sasl_plain_username": asked.user, "sasl_plain_password": asked.password}
    return settings


async def create(asked):
    admin = AIOKafkaAdminClient(bootstrap_servers=asked.bootstrap, **security(asked))
    await admin.start()
    await admin.create_topics([NewTopic(asked.topic, asked.partitions, asked.replicas)])
    await admin.close()


async def produce(asked):
    codec = None if asked.codec == "none" else asked.codec
    producer = AIOKafkaProducer(bootstrap_servers=asked.bootstrap, **security(asked), enable_idempotence=True, compression_type=codec, linger_ms=50)
    await producer.start()
    try:
        await asyncio.gather(*[await producer.send(asked.topic, key=key, value=events.VALUE) for key in asked.keys()])
    finally:
        await producer.stop()


class Listener(ConsumerRebalanceListener):
    async def on_partitions_revoked(self, revoked):
        pass

    async def on_partitions_assigned(self, assigned):
        events.assigned(tp.partition for tp in assigned)


async def commit(consumer):
    try:
        await consumer.commit()
    except KafkaError as error:  # A rebalance under way: the next commit covers it.
        print("commit:", repr(error), file=sys.stderr)


async def consume(asked):
    ending = events.Ending()
    settings = {"client_rack": asked.rack} if asked.rack else {}
    consumer = AIOKafkaConsumer(
        bootstrap_servers=asked.bootstrap, **security(asked), group_id=asked.group, auto_offset_reset="earliest", enable_auto_commit=False,
        session_timeout_ms=6000, heartbeat_interval_ms=500, fetch_max_wait_ms=500, **settings)
    consumer.subscribe([asked.topic], listener=Listener())
    await consumer.start()
    while not ending:
        polled = await consumer.getmany(timeout_ms=200)
        for batch in polled.values():
            for r in batch:
                events.record(r.partition, r.offset, r.key)
        if polled:
            await commit(consumer)
    await commit(consumer)
    await consumer.stop()


async def read(asked):
    consumer = AIOKafkaConsumer(bootstrap_servers=asked.bootstrap, **security(asked), enable_auto_commit=False)
    await consumer.start()
    partition = TopicPartition(asked.topic, asked.partition)
    consumer.assign([partition])
    await consumer.seek_to_end(partition)
    await consumer.position(partition)
    consumer.seek(partition, asked.offset)
    left = asked.count
    while left > 0:
        for batch in (await consumer.getmany(timeout_ms=500, max_records=left)).values():
            for r in batch:
                events.record(r.partition, r.offset, r.key)
                left -= 1
    await consumer.stop()


asked = events.Asked(sys.argv)
asyncio.run({"create": create, "produce": produce, "consume": consume, "read": read}[asked.verb](asked))
