/**
 * Renders the tree of a chat template with Python's meaning of everything.
 *
 * The library's own evaluation is not used: it differs from Python in the printing of values, in operators, filters,
 * methods and scopes, all of which go through values that it does not export. See the README of the room for the list.
 */
import { failure, present, PyDict, PyFloat, PyFunction, PyList, PyLoop, PyNamespace, PyTuple, PyUndefined, type PyArguments, type PyValue, typeName } from './values.ts'
import { attribute, item } from './attributes.ts'
import { TEXT_FILTERS } from './filters.ts'
import { refuseUnderscore } from './globals.ts'
import type { OwnNames } from './frames.ts'
import { arithmetic, compare, contains, equals, iterate, signed, sliceOf, truth } from './operators.ts'
import { pyStr } from './printing.ts'
import { OWN_PREFIX } from './rewrite.ts'
import { Scope } from './scope.ts'
import { type FilterContext, SEQUENCE_FILTERS } from './sequence-filters.ts'
import { type CallNode, filterParts, type IdentifierNode, type Node, testOfFilter } from './syntax.ts'
import { TESTS } from './tests.ts'

/** Bounds of one rendering: an endless template must not stop the process. */
const STEPS_MAX = 5_000_000
const OUTPUT_LENGTH_MAX = 64 * 1024 * 1024
const CALL_DEPTH_MAX = 200

type LoopSignal = 'break' | 'continue' | null

/** Text under construction; its pieces are put together at the end. */
class Output {
  readonly #pieces: string[] = []
  #length = 0

  write(text: string): void {
    this.#length += text.length
    if (this.#length > OUTPUT_LENGTH_MAX) throw failure(`the prompt is longer than ${OUTPUT_LENGTH_MAX} characters`)
    this.#pieces.push(text)
  }

  toString(): string {
    return this.#pieces.join('')
  }
}

/** One rendering. Errors: `TemplateError`. */
export class Renderer implements FilterContext {
  #steps = 0
  #callDepth = 0
  readonly #ownNames: OwnNames

  constructor(names: OwnNames) {
    this.#ownNames = names
  }

  render(body: readonly Node[], variables: ReadonlyMap<string, PyValue>): string {
    const scope = new Scope(null)
    for (const [name, value] of variables) scope.set(name, value)
    // Assignments of the template stand above the variables, macros see both.
    return this.#block(body, this.#enter(body, scope))
  }

  /** A scope for a body; the names that are its own begin as undefined. */
  #enter(body: readonly Node[], outer: Scope): Scope {
    const scope = new Scope(outer)
    for (const name of this.#ownNames.get(body) ?? []) scope.set(name, new PyUndefined(`'${name}' is undefined`))
    return scope
  }

  #block(body: readonly Node[], scope: Scope): string {
    const out = new Output()
    this.#run(body, scope, out)
    return out.toString()
  }

  #run(body: readonly Node[], scope: Scope, out: Output): LoopSignal {
    for (const node of body) {
      if (++this.#steps > STEPS_MAX) throw failure(`the template takes more than ${STEPS_MAX} steps`)
      switch (node.type) {
        case 'If': {
          const signal = this.#run(truth(this.#value(node.test, scope)) ? node.body : node.alternate, scope, out)
          if (signal !== null) return signal
          break
        }
        case 'For':
          this.#for(node, scope, out)
          break
        case 'Break':
          return 'break'
        case 'Continue':
          return 'continue'
        case 'Set':
          this.#set(node, scope)
          break
        case 'Macro':
          scope.set(node.name.value, this.#macro(node.name.value, node.args, node.body, scope))
          break
        case 'CallStatement':
          out.write(pyStr(this.#callStatement(node, scope)))
          break
        case 'FilterStatement': {
          const { name, args } = filterParts(node.filter)
          out.write(pyStr(this.applyFilter(name, this.#block(node.body, this.#enter(node.body, scope)), this.#arguments(args, scope))))
          break
        }
        default:
          out.write(pyStr(this.#value(node, scope)))
      }
    }
    return null
  }

  #for(node: Node & { type: 'For' }, scope: Scope, out: Output): void {
    const filtered = node.iterable.type === 'SelectExpression' ? node.iterable : null
    const source = this.#value(filtered === null ? node.iterable : filtered.lhs, scope)
    let items = iterate(source)
    if (filtered !== null) {
      items = items.filter((value) => {
        const own = new Scope(scope)
        this.#assign(node.loopvar, value, own)
        return truth(this.#value(filtered.test, own))
      })
    }
    if (items.length === 0) {
      this.#run(node.defaultBlock, this.#enter(node.defaultBlock, scope), out)
      return
    }
    const loop = new PyLoop(items)
    for (const [index, value] of items.entries()) {
      loop.index0 = index
      const own = this.#enter(node.body, scope)
      own.set('loop', loop)
      this.#assign(node.loopvar, value, own)
      if (this.#run(node.body, own, out) === 'break') break
    }
  }

  #set(node: Node & { type: 'Set' }, scope: Scope): void {
    if (node.value !== null) {
      this.#assign(node.assignee, this.#value(node.value, scope), scope)
      return
    }
    let value: PyValue = this.#block(node.body, this.#enter(node.body, scope))
    let target = node.assignee
    const filters: Node[] = []
    while (target.type === 'FilterExpression') {
      filters.unshift(target.filter)
      target = target.operand
    }
    for (const filter of filters) {
      const { name, args } = filterParts(filter)
      value = this.applyFilter(name, value, this.#arguments(args, scope))
    }
    this.#assign(target, value, scope)
  }

  #assign(target: Node, value: PyValue, scope: Scope): void {
    if (target.type === 'Identifier') scope.set(target.value, value)
    else if (target.type === 'TupleLiteral') {
      const items = value instanceof PyUndefined ? null : iterate(value)
      if (items === null) throw failure((value as PyUndefined).message)
      if (items.length !== target.value.length) {
        throw failure(items.length > target.value.length ? `too many values to unpack (expected ${target.value.length})` : `not enough values to unpack (expected ${target.value.length}, got ${items.length})`)
      }
      for (const [i, part] of target.value.entries()) this.#assign(part, items[i] as PyValue, scope)
    } else {
      const member = target as Node & { type: 'MemberExpression' }
      const object = this.#value(member.object, scope)
      if (!(object instanceof PyNamespace)) throw failure('cannot assign attribute on non-namespace object')
      const name = (member.property as IdentifierNode).value
      refuseUnderscore(name)
      object.attributes.set(name, value)
    }
  }

  /** `scope` is where the macro stands: names resolve there when it is called. */
  #macro(name: string, parameters: readonly Node[], body: readonly Node[], scope: Scope): PyFunction {
    const names = parameters.map((parameter) => (parameter.type === 'KeywordArgumentExpression' ? parameter.key.value : (parameter as IdentifierNode).value))
    const special = readNames(body)
    return new PyFunction(name, ({ positional, named }) => {
      if (++this.#callDepth > CALL_DEPTH_MAX) throw failure('maximum recursion depth exceeded')
      const own = this.#enter(body, scope)
      const rest = new Map(named)
      for (const [i, parameter] of parameters.entries()) {
        const parameterName = names[i] as string
        let value = i < positional.length ? positional[i] : rest.get(parameterName)
        if (i < positional.length && rest.has(parameterName)) throw failure(`macro '${name}' got multiple values for argument '${parameterName}'`)
        rest.delete(parameterName)
        if (value === undefined && parameter.type === 'KeywordArgumentExpression') value = this.#value(parameter.value, own)
        own.set(parameterName, present(value, new PyUndefined(`parameter '${parameterName}' was not provided`)))
      }
      if (special.has('caller') && !names.includes('caller')) {
        own.set('caller', present(rest.get('caller'), new PyUndefined('No caller defined')))
        rest.delete('caller')
      }
      this.#bindRest(name, names, positional, rest, special, own)
      const text = this.#block(body, own)
      this.#callDepth--
      return text
    })
  }

  #bindRest(macro: string, names: readonly string[], positional: readonly PyValue[], rest: ReadonlyMap<string, PyValue>, special: ReadonlySet<string>, own: Scope): void {
    if (special.has('kwargs') && !names.includes('kwargs')) {
      const kwargs = new PyDict()
      for (const [key, value] of rest) kwargs.set(key, value)
      own.set('kwargs', kwargs)
    } else if (rest.size > 0) {
      const [unknown] = rest.keys()
      throw failure(unknown === 'caller' ? `macro '${macro}' was invoked with two values for the special caller argument` : `macro '${macro}' takes no keyword argument '${unknown ?? ''}'`)
    }
    if (special.has('varargs') && !names.includes('varargs')) own.set('varargs', new PyTuple(positional.slice(names.length)))
    else if (positional.length > names.length) throw failure(`macro '${macro}' takes not more than ${names.length} argument(s)`)
  }

  #callStatement(node: Node & { type: 'CallStatement' }, scope: Scope): PyValue {
    const args = this.#arguments(node.call.args, scope)
    const caller = this.#macro('caller', node.callerArgs ?? [], node.body, scope)
    return this.#call(this.#value(node.call.callee, scope), { positional: args.positional, named: new Map([...args.named, ['caller', caller]]) })
  }

  #call(callee: PyValue, args: PyArguments): PyValue {
    if (callee instanceof PyFunction) return callee.call(args)
    throw failure(callee instanceof PyUndefined ? callee.message : `'${typeName(callee)}' object is not callable`)
  }

  #arguments(nodes: readonly Node[], scope: Scope): PyArguments {
    const positional: PyValue[] = []
    const named = new Map<string, PyValue>()
    const name = (key: string, value: PyValue): void => {
      if (named.has(key)) throw failure(`got multiple values for keyword argument '${key}'`)
      named.set(key, value)
    }
    for (const node of nodes) {
      if (node.type === 'SpreadExpression') positional.push(...iterate(this.#value(node.argument, scope)))
      else if (node.type === 'KeywordArgumentExpression') name(node.key.value, this.#value(node.value, scope))
      else if (node.type === 'KeywordSpreadExpression') {
        const dict = this.#value(node.argument, scope)
        if (!(dict instanceof PyDict)) throw failure(`argument after ** must be a mapping, not ${typeName(dict)}`)
        for (const [key, value] of dict.entries()) name(pyStr(key), value)
      } else positional.push(this.#value(node, scope))
    }
    return { positional, named }
  }

  applyFilter(name: string, value: PyValue, args: PyArguments): PyValue {
    const test = testOfFilter(name)
    if (test !== null) return this.applyTest(test.test, value, args) !== test.negated
    if (name === `${OWN_PREFIX}same`) return value
    const sequence = SEQUENCE_FILTERS.get(name)
    if (sequence !== undefined) return sequence(value, args, this)
    const filter = TEXT_FILTERS.get(name)
    if (filter === undefined) throw failure(`No filter named '${name}'.`)
    return filter(value, args)
  }

  applyTest(name: string, value: PyValue, args: PyArguments): boolean {
    const test = TESTS.get(name)
    if (test === undefined) throw failure(`No test named '${name}'.`)
    return test(value, [...args.positional, ...args.named.values()])
  }

  #value(node: Node, scope: Scope): PyValue {
    if (++this.#steps > STEPS_MAX) throw failure(`the template takes more than ${STEPS_MAX} steps`)
    switch (node.type) {
      case 'StringLiteral':
      case 'IntegerLiteral':
        return node.value
      case 'FloatLiteral':
        return new PyFloat(node.value)
      case 'Identifier':
        return CONSTANTS.has(node.value) ? present(CONSTANTS.get(node.value)) : scope.get(node.value)
      case 'ArrayLiteral':
        return new PyList(node.value.map((part) => this.#value(part, scope)))
      case 'TupleLiteral':
        return new PyTuple(node.value.map((part) => this.#value(part, scope)))
      case 'ObjectLiteral': {
        const dict = new PyDict()
        for (const [key, value] of node.value) dict.set(this.#value(key, scope), this.#value(value, scope))
        return dict
      }
      case 'MemberExpression':
        return this.#member(node, scope)
      case 'CallExpression':
        return this.#callExpression(node, scope)
      case 'UnaryExpression': {
        const value = this.#value(node.argument, scope)
        return node.operator.value === 'not' ? !truth(value) : signed(node.operator.value, value)
      }
      case 'BinaryExpression':
        return this.#binary(node, scope)
      case 'FilterExpression': {
        const { name, args } = filterParts(node.filter)
        return this.applyFilter(name, this.#value(node.operand, scope), this.#arguments(args, scope))
      }
      case 'TestExpression':
        return this.applyTest(node.test.value, this.#value(node.operand, scope), NO_ARGUMENTS) !== node.negate
      case 'SelectExpression':
        return truth(this.#value(node.test, scope)) ? this.#value(node.lhs, scope) : new PyUndefined('the inline if-expression evaluated to false and no else section was defined.')
      case 'Ternary':
        return this.#value(truth(this.#value(node.condition, scope)) ? node.trueExpr : node.falseExpr, scope)
      default:
        throw failure(`a ${node.type} stands where a value is needed`)
    }
  }

  #callExpression(node: CallNode, scope: Scope): PyValue {
    return this.#call(this.#value(node.callee, scope), this.#arguments(node.args, scope))
  }

  #member(node: Node & { type: 'MemberExpression' }, scope: Scope): PyValue {
    const object = this.#value(node.object, scope)
    const { property } = node
    if (!node.computed) return property.type === 'Identifier' ? attribute(object, property.value) : item(object, this.#value(property, scope))
    if (property.type !== 'SliceExpression') return item(object, this.#value(property, scope))
    const bound = (part: Node | undefined): PyValue => (part === undefined ? null : this.#value(part, scope))
    return sliceOf(object, bound(property.start), bound(property.stop), bound(property.step))
  }

  #binary(node: Node & { type: 'BinaryExpression' }, scope: Scope): PyValue {
    const operator = node.operator.value
    const left = this.#value(node.left, scope)
    if (operator === 'and') return truth(left) ? this.#value(node.right, scope) : left
    if (operator === 'or') return truth(left) ? left : this.#value(node.right, scope)
    const right = this.#value(node.right, scope)
    switch (operator) {
      case '==':
        return equals(left, right)
      case '!=':
        return !equals(left, right)
      case 'in':
        return contains(right, left)
      case 'not in':
        return !contains(right, left)
      case '<':
        return compare(operator, left, right) < 0
      case '<=':
        return compare(operator, left, right) <= 0
      case '>':
        return compare(operator, left, right) > 0
      case '>=':
        return compare(operator, left, right) >= 0
      case '~':
        return pyStr(left) + pyStr(right)
      default:
        return arithmetic(operator, left, right)
    }
  }
}

const NO_ARGUMENTS: PyArguments = { positional: [], named: new Map() }

const CONSTANTS: ReadonlyMap<string, PyValue> = new Map<string, PyValue>([
  ['true', true],
  ['True', true],
  ['false', false],
  ['False', false],
  ['none', null],
  ['None', null],
])

/** Which of `caller`, `kwargs` and `varargs` a macro's body reads: only then are they bound. */
function readNames(body: unknown, found: Set<string> = new Set()): Set<string> {
  if (Array.isArray(body)) for (const part of body) readNames(part, found)
  else if (body instanceof Map) {
    for (const [key, value] of body) {
      readNames(key, found)
      readNames(value, found)
    }
  } else if (typeof body === 'object' && body !== null) {
    const node = body as { type?: unknown; value?: unknown }
    if (node.type === 'Identifier' && (node.value === 'caller' || node.value === 'kwargs' || node.value === 'varargs')) found.add(node.value)
    for (const part of Object.values(body)) readNames(part, found)
  }
  return found
}

