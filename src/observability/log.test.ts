/** Lines of the log in both forms, and what `DYN_LOG` asks for. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createLog, formatLine, parseLogLevel } from './log.ts'

function collect(level: string, jsonl: boolean) {
  const lines: string[] = []
  return { lines, log: createLog({ level, jsonl, stream: { write: (line) => lines.push(line) } }) }
}

test('a line has time, level, message and fields; only odd texts are quoted', () => {
  const line = formatLine(' INFO', { request_id: 'a b', worker_id: '18446744073709551615', dp_rank: 0, model: undefined, reason: null }, 'chosen', new Date(0))
  assert.equal(line, '1970-01-01T00:00:00.000Z  INFO chosen request_id="a b" worker_id=18446744073709551615 dp_rank=0 reason=null\n')
})

test('an entry is one line whatever its texts hold', () => {
  const line = formatLine(' WARN', { reason: 'x\ny level=error' }, 'bad\r\nnews', new Date(0))
  assert.equal(line.split('\n').length, 2)
  assert.match(line, /"bad\\r\\nnews" reason="x\\ny level=error"/)
})

test('JSON lines carry level, time, message and the fields', () => {
  const { lines, log } = collect('info', true)
  log.warn({ request_id: 'r', worker_id: '12', dp_rank: 1 }, 'hello\nworld')
  assert.equal(lines.length, 1)
  const { time, ...entry } = JSON.parse(lines[0] ?? '') as Record<string, unknown>
  assert.deepEqual(entry, { level: 'warn', request_id: 'r', worker_id: '12', dp_rank: 1, message: 'hello\nworld' })
  assert.match(String(time), /^\d{4}-\d\d-\d\dT.*Z$/)
})

for (const jsonl of [true, false]) {
  test(`entries below the level are left out (${jsonl ? 'JSON' : 'lines'})`, () => {
    const written = (level: string): number => {
      const { lines, log } = collect(level, jsonl)
      log.error({}, 'e')
      log.warn({}, 'w')
      log.info({}, 'i')
      log.debug({}, 'd')
      return lines.length
    }
    assert.deepEqual(['off', 'error', 'warn', 'info', 'debug', 'trace'].map(written), [0, 1, 2, 3, 4, 4])
  })
}

test('levels are read leniently', () => {
  const cases = { info: 'info', DEBUG: 'debug', warning: 'warn', 'info,hyper=trace': 'info', 'warn,warmpath=debug': 'debug', 'hyper=trace': 'info', '': 'info', nonsense: 'info', 'error, x': 'error' }
  for (const [text, level] of Object.entries(cases)) assert.equal(parseLogLevel(text), level, text)
})
