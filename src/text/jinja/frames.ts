/**
 * Which names a body starts with as undefined, whatever lies further out.
 *
 * Python's Jinja decides when it compiles where a name lives: one that a body assigns before it reads it is the body's
 * own from its beginning, also in the loops and macros within, and is undefined until it is assigned. So
 * `{% set x %}{{ x }}{% endset %}` shows nothing even when the request has an `x`. Assignments in only some branches of an
 * `if` do not count. Other names resolve as they do in the scopes at run time.
 */
import { filterParts, type IdentifierNode, type Node } from './syntax.ts'

/** By body: the very array of the tree. */
export type OwnNames = ReadonlyMap<readonly Node[], readonly string[]>

/** Names of one body: `refs` has all that it reads or assigns itself, `stores` those assigned, `unset` those undefined first. */
class Symbols {
  readonly parent: Symbols | null
  readonly refs: Set<string>
  readonly stores: Set<string>
  readonly unset: Set<string>

  constructor(parent: Symbols | null, from?: Symbols) {
    this.parent = parent
    this.refs = new Set(from?.refs)
    this.stores = new Set(from?.stores)
    this.unset = new Set(from?.unset)
  }

  knows(name: string): boolean {
    return this.refs.has(name) || this.parent?.knows(name) === true
  }

  load(name: string): void {
    if (!this.knows(name)) this.refs.add(name)
  }

  store(name: string): void {
    this.stores.add(name)
    if (this.refs.has(name)) return
    if (this.parent?.knows(name) !== true) this.unset.add(name)
    this.refs.add(name)
  }

  /** Takes what the branches of an `if` do; what not all of them assign comes from further out where they do not. */
  merge(branches: readonly Symbols[]): void {
    const counts = new Map<string, number>()
    for (const branch of branches) for (const name of branch.stores) if (!this.stores.has(name)) counts.set(name, (counts.get(name) ?? 0) + 1)
    for (const branch of branches) {
      for (const name of branch.refs) this.refs.add(name)
      for (const name of branch.stores) this.stores.add(name)
      for (const name of branch.unset) this.unset.add(name)
    }
    for (const [name, count] of counts) if (count < branches.length) this.unset.delete(name)
  }
}

interface Frame {
  readonly body: readonly Node[]
  readonly parameters: readonly string[]
  /** Read when the body begins: defaults of a macro's parameters. */
  readonly reads: readonly Node[]
}

export function ownNames(body: readonly Node[]): OwnNames {
  const found = new Map<readonly Node[], readonly string[]>()
  analyze({ body, parameters: [], reads: [] }, null, found)
  return found
}

function analyze(frame: Frame, parent: Symbols | null, found: Map<readonly Node[], readonly string[]>): void {
  const symbols = new Symbols(parent)
  const inner: Frame[] = []
  for (const name of frame.parameters) {
    symbols.stores.add(name)
    symbols.refs.add(name)
  }
  for (const node of frame.reads) visit(node, symbols, inner)
  for (const node of frame.body) visit(node, symbols, inner)
  if (symbols.unset.size > 0) found.set(frame.body, [...symbols.unset])
  for (const each of inner) analyze(each, symbols, found)
}

function visit(node: Node, symbols: Symbols, inner: Frame[]): void {
  switch (node.type) {
    case 'Identifier':
      symbols.load(node.value)
      return
    case 'If':
      visitIf(node, symbols, inner)
      return
    case 'Set':
      if (node.value !== null) visit(node.value, symbols, inner)
      else inner.push({ body: node.body, parameters: [], reads: [] })
      visitTarget(node.assignee, symbols, inner)
      return
    case 'For':
      visit(node.iterable.type === 'SelectExpression' ? node.iterable.lhs : node.iterable, symbols, inner)
      inner.push({ body: node.body, parameters: [...targetNames(node.loopvar), 'loop'], reads: [] }, { body: node.defaultBlock, parameters: [], reads: [] })
      return
    case 'Macro':
      symbols.store(node.name.value)
      inner.push(macroFrame(node.args, node.body))
      return
    case 'CallStatement':
      visit(node.call, symbols, inner)
      inner.push(macroFrame(node.callerArgs ?? [], node.body))
      return
    case 'FilterStatement':
      for (const argument of filterParts(node.filter).args) visit(argument, symbols, inner)
      inner.push({ body: node.body, parameters: [], reads: filterParts(node.filter).args })
      return
    default:
      for (const part of expressionParts(node)) visit(part, symbols, inner)
  }
}

function visitIf(node: Node & { type: 'If' }, symbols: Symbols, inner: Frame[]): void {
  visit(node.test, symbols, inner)
  // An `elif` is an `if` of its own in the else branch: Python takes all its tests and bodies for one branch.
  const chain: Node[] = []
  let rest = node.alternate
  while (rest.length === 1 && rest[0]?.type === 'If') {
    chain.push(rest[0])
    rest = rest[0].alternate
  }
  const branch = (visitBranch: (own: Symbols) => void): Symbols => {
    const own = new Symbols(symbols.parent, symbols)
    visitBranch(own)
    return own
  }
  const body = branch((own) => node.body.forEach((part) => visit(part, own, inner)))
  const others = branch((own) => {
    for (const each of chain) visit({ ...(each as Node & { type: 'If' }), alternate: [] }, own, inner)
  })
  const last = branch((own) => rest.forEach((part) => visit(part, own, inner)))
  symbols.merge([body, others, last])
}

function macroFrame(parameters: readonly Node[], body: readonly Node[]): Frame {
  return {
    body,
    parameters: parameters.map((parameter) => (parameter.type === 'KeywordArgumentExpression' ? parameter.key.value : (parameter as IdentifierNode).value)),
    reads: parameters.flatMap((parameter) => (parameter.type === 'KeywordArgumentExpression' ? [parameter.value] : [])),
  }
}

function targetNames(target: Node): string[] {
  if (target.type === 'Identifier') return [target.value]
  return target.type === 'TupleLiteral' ? target.value.flatMap(targetNames) : []
}

function visitTarget(target: Node, symbols: Symbols, inner: Frame[]): void {
  if (target.type === 'FilterExpression') {
    visitTarget(target.operand, symbols, inner)
    return
  }
  if (target.type === 'MemberExpression') visit(target.object, symbols, inner)
  for (const name of targetNames(target)) symbols.store(name)
}

/** Parts of an expression that hold names; names of attributes, filters, tests and arguments are none. */
function expressionParts(node: Node): readonly Node[] {
  switch (node.type) {
    case 'ArrayLiteral':
    case 'TupleLiteral':
      return node.value
    case 'ObjectLiteral':
      return [...node.value].flat()
    case 'CallExpression':
      return [node.callee, ...node.args]
    case 'MemberExpression':
      return node.computed ? [node.object, node.property] : [node.object]
    case 'SliceExpression':
      return [node.start, node.stop, node.step].filter((part) => part !== undefined)
    case 'UnaryExpression':
    case 'SpreadExpression':
    case 'KeywordSpreadExpression':
      return [node.argument]
    case 'BinaryExpression':
      return [node.left, node.right]
    case 'FilterExpression':
      return [node.operand, ...filterParts(node.filter).args]
    case 'TestExpression':
      return [node.operand]
    case 'SelectExpression':
      return [node.lhs, node.test]
    case 'Ternary':
      return [node.condition, node.trueExpr, node.falseExpr]
    case 'KeywordArgumentExpression':
      return [node.value]
    default:
      return []
  }
}
