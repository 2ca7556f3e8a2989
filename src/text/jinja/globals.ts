/** Functions that every chat template may call. */
import { TemplateError } from '../template-error.ts'
import { bind, integer, text } from './arguments.ts'
import { iterate } from './operators.ts'
import { pyStr } from './printing.ts'
import { strftime } from './strftime.ts'
import { failure, PyDict, PyFloat, PyFunction, PyNamespace, PyRange, PyTuple, pyInt, type PyArguments, type PyValue } from './values.ts'

/** As the sandbox of the original has it. */
const RANGE_LENGTH_MAX = 100_000

function range(args: PyArguments): PyValue {
  if (args.positional.length === 0) throw failure('range expected at least 1 argument, got 0')
  const [first, second, third] = bind('range', ['start', 'stop', 'step'], args).map((value) => (value === undefined ? undefined : integer('range', value, 0)))
  const start = second === undefined ? 0 : (first as number)
  const stop = second ?? (first as number)
  const step = third ?? 1
  if (step === 0) throw failure('range() arg 3 must not be zero')
  if ((stop - start) / step > RANGE_LENGTH_MAX) throw failure(`range too big; the maximum size for a range is ${RANGE_LENGTH_MAX}`)
  const items: number[] = []
  for (let i = start; step > 0 ? i < stop : i > stop; i += step) items.push(i)
  return new PyRange(start, stop, step, items)
}

function dictOf(owner: string, args: PyArguments): PyDict {
  const dict = new PyDict()
  if (args.positional.length > 1) throw failure(`${owner} expected at most 1 argument, got ${args.positional.length}`)
  const source = args.positional[0]
  if (source instanceof PyDict) for (const [key, value] of source.entries()) dict.set(key, value)
  else if (source !== undefined) {
    for (const pair of iterate(source)) {
      const parts = iterate(pair)
      if (parts.length !== 2) throw failure(`${owner}: an update sequence element has length ${parts.length}; 2 is required`)
      dict.set(parts[0] as PyValue, parts[1] as PyValue)
    }
  }
  for (const [name, value] of args.named) dict.set(name, value)
  return dict
}

function namespace(args: PyArguments): PyValue {
  const attributes = new Map<string, PyValue>()
  for (const [key, value] of dictOf('namespace', args).entries()) attributes.set(text('namespace', key), value)
  for (const name of attributes.keys()) refuseUnderscore(name)
  return new PyNamespace(attributes)
}

/** Chat templates cannot store such attributes. */
export function refuseUnderscore(name: string): void {
  if (name.startsWith('_')) throw failure(`Chat templates cannot store underscore-prefixed attributes on a namespace, but got '${name}'`)
}

/** By name. `nowMs` gives Unix milliseconds for `strftime_now`. */
export function globalFunctions(nowMs: () => number): ReadonlyMap<string, PyFunction> {
  const functions: readonly (readonly [string, (args: PyArguments) => PyValue])[] = [
    ['range', range],
    ['dict', (args) => dictOf('dict', args)],
    ['namespace', namespace],
    [
      'raise_exception',
      (args) => {
        throw new TemplateError('raised', pyStr(bind('raise_exception', ['message'], args, 1)[0] as PyValue))
      },
    ],
    ['strftime_now', (args) => strftime(new Date(nowMs()), text('strftime_now', bind('strftime_now', ['format'], args, 1)[0]))],
    ['wp__float', (args) => new PyFloat(Number(args.positional[0]))],
    ['wp__int', (args) => pyInt(BigInt(text('int', args.positional[0])))],
    ['wp__tuple', (args) => new PyTuple(args.positional)],
    ['wp__generation', (args) => (args.named.get('caller') as PyFunction).call({ positional: [], named: new Map() })],
  ]
  return new Map(functions.map(([name, call]) => [name, new PyFunction(name, call)]))
}
