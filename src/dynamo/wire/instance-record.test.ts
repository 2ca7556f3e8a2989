/** Goal: endpoint records of all generations are read, broken ones named. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { decodeInstanceRecord, encodeInstanceRecord } from './instance-record.ts'

const record = { type: 'Endpoint', component: 'backend', endpoint: 'generate', namespace: 'dynamo', instance_id: 13428561255892356228n, transport: { tcp: '192.0.2.2:1/a' } }

test('a record without a codec is of a peer that knows JSON only', () => {
  const decoded = decodeInstanceRecord(record)
  assert.deepEqual(decoded, { namespace: 'dynamo', component: 'backend', endpoint: 'generate', instanceId: 13428561255892356228n, transport: { tcp: '192.0.2.2:1/a' }, codec: 'json', deviceType: null })
  assert.deepEqual(decodeInstanceRecord(encodeInstanceRecord(decoded)), decoded)
  const { type: _type, ...recoveryTarget } = record
  assert.deepEqual(decodeInstanceRecord(recoveryTarget), decoded)
})

test('NATS records and small ids are read', () => {
  const decoded = decodeInstanceRecord({ ...record, instance_id: 7, transport: { nats_tcp: 'dynamo_backend.generate-7' }, device_type: 'cpu', request_plane_codec: 'msgpack' })
  assert.deepEqual([decoded.instanceId, decoded.transport, decoded.deviceType, decoded.codec], [7n, { nats_tcp: 'dynamo_backend.generate-7' }, 'cpu', 'msgpack'])
})

test('broken records name their field', () => {
  const broken: readonly [object, RegExp][] = [
    [{ type: 'Model' }, /type is "Model"/], [{ component: '' }, /component is ""/], [{ namespace: 5 }, /namespace is 5/], [{ instance_id: -1 }, /instance_id is -1/],
    [{ instance_id: 1n << 64n }, /instance_id is 18446744073709551616/], [{ instance_id: 1.5 }, /instance_id is 1.5/], [{ transport: {} }, /transport/], [{ transport: { http: 'http://192.0.2.2:1/v1/rpc/generate' } }, /http, the request plane of Dynamo 1.1.*DYN_REQUEST_PLANE=tcp or nats/], [{ request_plane_codec: 'cbor' }, /request_plane_codec is "cbor"/],
  ]
  for (const [change, message] of broken) assert.throws(() => decodeInstanceRecord({ ...record, ...change }), message)
  assert.throws(() => decodeInstanceRecord([]), /expected an object/)
})
