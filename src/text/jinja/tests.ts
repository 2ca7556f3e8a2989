/** Jinja's tests: what may follow `is`. */
import { compare, contains, equals, iterate } from './operators.ts'
import { pyStr } from './printing.ts'
import { failure, isInt, PyDict, PyFloat, PyFunction, PyIterator, PyList, PyLoop, PyRange, PyTuple, PyUndefined, type PyValue, typeName } from './values.ts'

type Test = (value: PyValue, args: readonly PyValue[]) => boolean

const argument = (args: readonly PyValue[]): PyValue => {
  if (args.length !== 1) throw failure(`a test takes one argument, ${args.length} given`)
  return args[0] as PyValue
}

function remainder(value: PyValue, by: PyValue): bigint | number {
  if (typeof value === 'boolean' || isInt(value)) {
    if (!isInt(by)) throw failure('divisibleby needs an int')
    if (by == 0) throw failure('integer modulo by zero')
    return BigInt(value) % BigInt(by)
  }
  if (value instanceof PyFloat) return value.value % Number(by)
  throw failure(value instanceof PyUndefined ? value.message : `not all arguments converted: '${typeName(value)}' is not a number`)
}

const ordered =
  (operator: string, holds: (order: number) => boolean): Test =>
  (value, args) =>
    holds(compare(operator, value, argument(args)))

const equal: Test = (value, args) => equals(value, argument(args))
const unequal: Test = (value, args) => !equals(value, argument(args))
const greater = ordered('>', (order) => order > 0)
const greaterEqual = ordered('>=', (order) => order >= 0)
const less = ordered('<', (order) => order < 0)
const lessEqual = ordered('<=', (order) => order <= 0)

const isIterable = (value: PyValue): boolean => {
  if (value instanceof PyIterator || value instanceof PyLoop) return true
  try {
    iterate(value)
    return true
  } catch {
    return false
  }
}

/** Whether all cased letters are of one case, and there is one. */
const allCased = (value: PyValue, wanted: RegExp, unwanted: RegExp): boolean => wanted.test(pyStr(value)) && !unwanted.test(pyStr(value))

/** By name; one that is not here is refused when the template is loaded. */
export const TESTS: ReadonlyMap<string, Test> = new Map<string, Test>([
  ['defined', (value) => !(value instanceof PyUndefined)],
  ['undefined', (value) => value instanceof PyUndefined],
  ['none', (value) => value === null],
  ['boolean', (value) => typeof value === 'boolean'],
  ['true', (value) => value === true],
  ['false', (value) => value === false],
  ['integer', (value) => isInt(value)],
  ['float', (value) => value instanceof PyFloat],
  ['number', (value) => isInt(value) || typeof value === 'boolean' || value instanceof PyFloat],
  ['string', (value) => typeof value === 'string'],
  ['mapping', (value) => value instanceof PyDict],
  ['sequence', (value) => typeof value === 'string' || value instanceof PyDict || value instanceof PyList || value instanceof PyTuple || value instanceof PyRange || value instanceof PyUndefined],
  ['iterable', isIterable],
  ['callable', (value) => value instanceof PyFunction || value instanceof PyUndefined],
  ['odd', (value) => Math.abs(Number(remainder(value, 2))) === 1],
  ['even', (value) => Number(remainder(value, 2)) === 0],
  ['divisibleby', (value, args) => Number(remainder(value, argument(args))) === 0],
  ['lower', (value) => allCased(value, /\p{Ll}/u, /[\p{Lu}\p{Lt}]/u)],
  ['upper', (value) => allCased(value, /\p{Lu}/u, /[\p{Ll}\p{Lt}]/u)],
  ['in', (value, args) => contains(argument(args), value)],
  ['sameas', (value, args) => {
    const other = argument(args)
    if (typeof other !== 'boolean' && other !== null && typeof other !== 'object') throw failure('sameas is supported for True, False and None only')
    return value === other
  }],
  ['eq', equal],
  ['equalto', equal],
  ['==', equal],
  ['ne', unequal],
  ['!=', unequal],
  ['gt', greater],
  ['greaterthan', greater],
  ['>', greater],
  ['ge', greaterEqual],
  ['>=', greaterEqual],
  ['lt', less],
  ['lessthan', less],
  ['<', less],
  ['le', lessEqual],
  ['<=', lessEqual],
])

