/** The command line is split as Python's argparse does it. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { splitArguments } from './arguments.ts'
import { flagSpellings } from './option.ts'
import { routerOptions } from './table.ts'
import { UsageError } from './usage-error.ts'

const spellings = flagSpellings(routerOptions)
const split = (...argv: string[]) =>
  splitArguments('router', argv, spellings).given.map(({ flag, text }) => [flag.key, text ?? flag.switchValue] as const)
const fails = (argv: string[], message: RegExp) => assert.throws(() => split(...argv), (error) => error instanceof UsageError && message.test(error.message))

test('values follow a space or an equals sign', () => {
  assert.deepEqual(split('--endpoint', 'a.b.c', '--router-block-size=16'), [['endpoint', 'a.b.c'], ['blockSize', '16']])
  assert.deepEqual(split('--endpoint=a=b'), [['endpoint', 'a=b']])
  assert.deepEqual(split('--endpoint='), [['endpoint', '']])
})

test('a negative number is a value, another dash is not', () => {
  assert.deepEqual(split('--router-temperature', '-1', '--router-block-size', '-4'), [['temperature', '-1'], ['blockSize', '-4']])
  assert.deepEqual(split('--router-temperature', '-.5e3'), [['temperature', '-.5e3']])
  fails(['--router-temperature', '-x'], /^--router-temperature needs a value/)
  fails(['--router-temperature', '--endpoint'], /needs a value/)
  fails(['--router-temperature'], /needs a value/)
})

test('switches have a negative form and take no value', () => {
  assert.deepEqual(split('--router-kv-events', '--no-router-kv-events', '--no-kv-events'), [['useKvEvents', true], ['useKvEvents', false], ['useKvEvents', false]])
  fails(['--router-kv-events=true'], /takes no value; write --router-kv-events or --no-router-kv-events/)
})

test('a prefix that fits one option stands for it', () => {
  assert.deepEqual(split('--end', 'a.b.c', '--no-router-k', '--router-ho', '1'), [['endpoint', 'a.b.c'], ['useKvEvents', false], ['hostCacheHitWeight', '1']])
  assert.deepEqual(split('--router-temp=0.5'), [['temperature', '0.5']])
  fails(['--router-track', '1'], /^ambiguous option --router-track: it could be --router-track-active-blocks/)
  fails(['--router-kv-overlap', '1'], /ambiguous/)
})

test('an option that is the beginning of another is taken as written', () => {
  assert.deepEqual(split('--router-kv-overlap-score-credit', '2'), [['overlapScoreCredit', '2']])
})

test('names that Dynamo 1.6 lacks do not make its prefixes ambiguous', () => {
  assert.deepEqual(split('--router-re'), [['replicaSync', true]])
  assert.deepEqual(split('--router-res'), [['resetStates', true]])
  assert.deepEqual(split('--u'), [['useRemoteIndexer', true]])
  assert.equal(splitArguments('router', ['--he'], spellings).wantsHelp, true)
})

test('after two dashes there are no options, and the router takes nothing else', () => {
  assert.deepEqual(split('--endpoint', 'a.b.c', '--'), [['endpoint', 'a.b.c']])
  assert.deepEqual(split('--endpoint', '--', 'a.b.c'), [['endpoint', 'a.b.c']])
  fails(['--', 'x'], /unexpected argument "x"/)
  fails(['serve'], /unexpected argument "serve"/)
  fails(['-x'], /unexpected argument "-x"/)
})

test('a wrong name is answered with the nearest one', () => {
  fails(['--router-blok-size', '4'], /^unknown option --router-blok-size \(did you mean --router-block-size\?\)/)
  fails(['--nope'], /^unknown option --nope/)
  fails(['--router-quee'], /did you mean --router-queue-threshold/)
})

test('help and version are answered whatever follows', () => {
  assert.equal(splitArguments('router', ['-h', '--nope'], spellings).wantsHelp, true)
  assert.equal(splitArguments('router', ['--endpoint', 'x', '--help'], spellings).wantsHelp, true)
  assert.equal(splitArguments('router', ['--version'], spellings).wantsVersion, true)
})

test('any arguments are split or refused with one line', () => {
  const argument = fc.oneof(fc.string(), fc.constantFrom(...spellings.map(({ spelling }) => spelling), '--', '-', '-1', '--=', '---'))
  fc.assert(fc.property(fc.array(argument, { maxLength: 6 }), (argv) => {
    try {
      splitArguments('router', argv, spellings)
    } catch (error) {
      assert.ok(error instanceof UsageError)
      assert.doesNotMatch(error.message, /\n/)
    }
  }), { numRuns: 500 })
})

test('every whole name reaches its option, every prefix its own or an ambiguity', () => {
  const cases = fc.constantFrom(...spellings).chain((flag) => fc.tuple(fc.constant(flag), fc.integer({ min: 3, max: flag.spelling.length })))
  fc.assert(fc.property(cases, ([flag, length]) => {
    const name = flag.spelling.slice(0, length)
    const argv = flag.switchValue === null ? [name, '1'] : [name]
    try {
      const [given] = splitArguments('router', argv, spellings).given
      if (given !== undefined) assert.ok(given.flag.spelling.startsWith(name))
      if (name === flag.spelling) assert.equal(given?.flag.key, flag.key)
    } catch (error) {
      assert.ok(error instanceof UsageError)
      assert.notEqual(name, flag.spelling)
    }
  }), { numRuns: 500 })
})
