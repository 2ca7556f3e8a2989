/** The signal of a request: heard once, by those who still listen. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Cut } from './cut.ts'

test('listeners hear the first abort once, and its reason stays', () => {
  const cut = new Cut()
  const heard: string[] = []
  const gone = (): void => { heard.push('gone') }
  cut.addEventListener('abort', () => heard.push(`first ${String(cut.reason)}`))
  cut.addEventListener('abort', gone)
  cut.removeEventListener('abort', gone)
  cut.throwIfAborted()
  assert.equal(cut.aborted, false)
  cut.abort('client-left')
  cut.abort('shutdown')
  cut.addEventListener('abort', () => heard.push('late'))
  assert.deepEqual(heard, ['first client-left'])
  assert.equal(cut.reason, 'client-left')
  assert.throws(() => cut.throwIfAborted(), (thrown) => thrown === 'client-left')
})

test('a listener may leave, or cut again, while it hears', () => {
  const cut = new Cut()
  let heard = 0
  const leave = (): void => {
    heard += 1
    cut.removeEventListener('abort', leave)
    cut.abort('again')
  }
  cut.addEventListener('abort', leave)
  cut.addEventListener('abort', () => { heard += 1 })
  cut.abort('shutdown')
  assert.equal(heard, 2)
  assert.equal(cut.reason, 'shutdown')
})
