/** Text models are shared by their files, loaded once, tried again after a failure, and closed when unused. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Clock, Log } from '../ports.ts'
import type { TextModel } from '../text/text-model.ts'
import { cardOf } from '../../test/model-cards.ts'
import { TextModels } from './text-models.ts'

const silent: Log = { debug() {}, info() {}, warn() {}, error() {} }
const fileCard = (model: string, sum: string) => cardOf({ id: 1, model, extra: { tokenizer: { hf_tokenizer_json: { path: `/${model}`, checksum: sum, size: 1 } } } })
const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

function rig(results: (TextModel | Error)[]) {
  const timers: { readonly delayMs: number; readonly callback: () => void }[] = []
  const clock: Clock = { nowMs: () => 0, epochMs: () => 0, setTimer: (delayMs, callback) => { timers.push({ delayMs, callback }); return { cancel() {} } } }
  const told: string[] = []
  let loads = 0
  const texts = new TextModels({
    clock, log: silent, onSettled: (user) => told.push(user),
    load: async () => {
      loads += 1
      const result = results.shift()
      if (result instanceof Error) throw result
      return result as TextModel
    },
  })
  return { texts, told, timers, loads: () => loads }
}
const textModel = (closed: string[] = [], name = 'text'): TextModel => ({ close: async () => { closed.push(name) } }) as unknown as TextModel

test('cards with the same file contents share one text model, wherever the files lie', async () => {
  const { texts, told, loads } = rig([textModel()])
  assert.equal(texts.use('a', fileCard('a', 'blake3:1')).text, null)
  texts.use('b', fileCard('b', 'blake3:1'))
  await settled()
  assert.deepEqual(told.sort(), ['a', 'b'])
  assert.ok(texts.use('a', fileCard('a', 'blake3:1')).text !== null)
  assert.equal(loads(), 1)
})

test('a failure is told and tried again, later each time', async () => {
  const { texts, told, timers } = rig([new Error('no file'), new Error('no file'), textModel()])
  texts.use('a', fileCard('a', 'blake3:1'))
  await settled()
  assert.equal(texts.use('a', fileCard('a', 'blake3:1')).problem, 'no file')
  timers[0]?.callback()
  await settled()
  timers[1]?.callback()
  await settled()
  assert.deepEqual(timers.map(({ delayMs }) => delayMs), [1000, 2000])
  const { text, problem } = texts.use('a', fileCard('a', 'blake3:1'))
  assert.ok(text !== null)
  assert.equal(problem, null)
  assert.deepEqual(told, ['a', 'a', 'a'])
})

test('what nobody uses is closed after a while, at the end at once', async () => {
  const closed: string[] = []
  const { texts, timers } = rig([textModel(closed, 'old'), textModel(closed, 'new')])
  texts.use('a', fileCard('a', 'blake3:1'))
  await settled()
  texts.use('a', fileCard('a', 'blake3:2'))
  await settled()
  assert.deepEqual(closed, [])
  timers[0]?.callback()
  await settled()
  assert.deepEqual(closed, ['old'])
  await texts.close()
  assert.deepEqual(closed, ['old', 'new'])
})
