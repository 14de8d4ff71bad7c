// Lines of user<TAB>event from standard input to Kafka: node produce_kafkajs.mjs host:port topic
// npm install kafkajs@2.2.4
import { createInterface } from 'node:readline'
import { Kafka, Partitioners } from 'kafkajs'

const [brokers, topic] = process.argv.slice(2)
const kafka = new Kafka({ clientId: 'shop', brokers: brokers.split(',') })
const producer = kafka.producer({ createPartitioner: Partitioners.DefaultPartitioner }) // murmur2, as Java's
await producer.connect()
let messages = []
const send = async () => { await producer.send({ topic, acks: -1, messages }); messages = [] }
for await (const line of createInterface({ input: process.stdin })) {
  const tab = line.indexOf('\t')
  messages.push({ key: line.slice(0, tab), value: line.slice(tab + 1) })
  if (messages.length === 500) await send()
}
if (messages.length) await send()
await producer.disconnect()
