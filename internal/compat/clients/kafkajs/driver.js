// kafkajs behind the driver protocol of package compat.
const { Kafka, CompressionTypes, logLevel } = require('kafkajs')

const [verb, ...rest] = process.argv.slice(2)
const asked = Object.fromEntries(rest.map((argument) => argument.split(/=(.*)/s).slice(0, 2)))
const emit = (event, fields) => process.stdout.write(JSON.stringify({ event, ...fields }) + '\n')
const ssl = asked.ca ? { ca: [require('fs').readFileSync(asked.ca, 'utf8')] } : undefined
const sasl = asked.mechanism
  ? { mechanism: asked.mechanism.toLowerCase(), username: asked.user, password: asked.password }
  : undefined
const kafka = new Kafka({ brokers: [asked.bootstrap], ssl, sasl, logLevel: logLevel.ERROR })
const value = 'a value that compresses well, well, well, well, well, well, well, well, well'

const record = ({ partition, message }) =>
  emit('record', { partition, offset: Number(message.offset), key: String(message.key ?? '') })

async function create() {
  const admin = kafka.admin()
  await admin.connect()
  await admin.createTopics({ topics: [{ topic: asked.topic, numPartitions: Number(asked.partitions), replicationFactor: Number(asked.replicas) }], waitForLeaders: true })
  await admin.disconnect()
}

async function produce() {
  const producer = kafka.producer({ idempotent: true, maxInFlightRequests: 1 })
  await producer.connect()
  const messages = Array.from({ length: Number(asked.count) }, (_, i) => ({ key: `${asked.codec}-${String(i).padStart(5, '0')}`, value }))
  const compression = asked.codec === 'gzip' ? CompressionTypes.GZIP : CompressionTypes.None
  await producer.send({ topic: asked.topic, acks: -1, compression, messages })
  await producer.disconnect()
}

const settings = (groupId) =>
  ({ groupId, sessionTimeout: 6000, rebalanceTimeout: 6000, heartbeatInterval: 500, maxWaitTimeInMs: 500, rackId: asked.rack ?? '' })

async function consume() {
  const consumer = kafka.consumer(settings(asked.group))
  consumer.on(consumer.events.GROUP_JOIN, ({ payload }) =>
    emit('assigned', { partitions: payload.memberAssignment[asked.topic] ?? [] }))
  let ending = false
  process.on('SIGTERM', async () => {
    if (ending) return
    ending = true
    await consumer.disconnect()
    process.exit(0)
  })
  await consumer.connect()
  await consumer.subscribe({ topic: asked.topic, fromBeginning: true })
  await consumer.run({ autoCommitInterval: 500, eachMessage: async (message) => record(message) })
}

// kafkajs seeks only within a group, so reading takes one of its own.
async function read() {
  const consumer = kafka.consumer(settings(`${asked.topic}-read-${process.pid}`))
  await consumer.connect()
  await consumer.subscribe({ topic: asked.topic, fromBeginning: true })
  let left = Number(asked.count)
  const running = consumer.run({
    autoCommit: false,
    eachMessage: async (message) => {
      if (left === 0 || message.partition !== Number(asked.partition)) return
      record(message)
      left -= 1
      if (left === 0) setImmediate(() => consumer.disconnect().then(() => process.exit(0)))
    },
  })
  consumer.seek({ topic: asked.topic, partition: Number(asked.partition), offset: asked.offset })
  await running
}

const verbs = { create, produce, consume, read }
verbs[verb]().catch((error) => {
  console.error(error)
  process.exit(1)
})
