/** Parses a respelled template with the template library, and refuses what would not be rendered exactly, naming it. */
import { parse, tokenize } from '@huggingface/jinja'
import { TemplateError } from '../template-error.ts'
import { KNOWN_METHODS, UNSUPPORTED_METHODS } from './attributes.ts'
import { TEXT_FILTERS } from './filters.ts'
import { OWN_PREFIX } from './rewrite.ts'
import { SEQUENCE_FILTERS } from './sequence-filters.ts'
import { respellTemplate } from './source.ts'
import { unsupportedDirective } from './strftime.ts'
import { TESTS } from './tests.ts'
import { unsupported } from './tokens.ts'

/** The library's tree, as far as the renderer reads it. */
export type Node =
  | { readonly type: 'Set'; readonly assignee: Node; readonly value: Node | null; readonly body: readonly Node[] }
  | { readonly type: 'If'; readonly test: Node; readonly body: readonly Node[]; readonly alternate: readonly Node[] }
  | { readonly type: 'For'; readonly loopvar: Node; readonly iterable: Node; readonly body: readonly Node[]; readonly defaultBlock: readonly Node[] }
  | { readonly type: 'Macro'; readonly name: IdentifierNode; readonly args: readonly Node[]; readonly body: readonly Node[] }
  | { readonly type: 'CallStatement'; readonly call: CallNode; readonly callerArgs: readonly Node[] | null; readonly body: readonly Node[] }
  | { readonly type: 'FilterStatement'; readonly filter: Node; readonly body: readonly Node[] }
  | { readonly type: 'Break' }
  | { readonly type: 'Continue' }
  | { readonly type: 'IntegerLiteral'; readonly value: number }
  | { readonly type: 'FloatLiteral'; readonly value: number }
  | { readonly type: 'StringLiteral'; readonly value: string }
  | { readonly type: 'ArrayLiteral'; readonly value: readonly Node[] }
  | { readonly type: 'TupleLiteral'; readonly value: readonly Node[] }
  | { readonly type: 'ObjectLiteral'; readonly value: ReadonlyMap<Node, Node> }
  | IdentifierNode
  | CallNode
  | { readonly type: 'MemberExpression'; readonly object: Node; readonly property: Node; readonly computed: boolean }
  | { readonly type: 'UnaryExpression'; readonly operator: { readonly value: string }; readonly argument: Node }
  | { readonly type: 'BinaryExpression'; readonly operator: { readonly value: string }; readonly left: Node; readonly right: Node }
  | { readonly type: 'FilterExpression'; readonly operand: Node; readonly filter: Node }
  | { readonly type: 'TestExpression'; readonly operand: Node; readonly negate: boolean; readonly test: IdentifierNode }
  | { readonly type: 'SelectExpression'; readonly lhs: Node; readonly test: Node }
  | { readonly type: 'Ternary'; readonly condition: Node; readonly trueExpr: Node; readonly falseExpr: Node }
  | { readonly type: 'SliceExpression'; readonly start?: Node; readonly stop?: Node; readonly step?: Node }
  | { readonly type: 'KeywordArgumentExpression'; readonly key: IdentifierNode; readonly value: Node }
  | { readonly type: 'SpreadExpression'; readonly argument: Node }
  | { readonly type: 'KeywordSpreadExpression'; readonly argument: Node }

export interface IdentifierNode {
  readonly type: 'Identifier'
  readonly value: string
}

export interface CallNode {
  readonly type: 'CallExpression'
  readonly callee: Node
  readonly args: readonly Node[]
}

/** Name and arguments of a filter: the library has a name, or a call of it. */
export function filterParts(filter: Node): { readonly name: string; readonly args: readonly Node[] } {
  if (filter.type === 'Identifier') return { name: filter.value, args: [] }
  if (filter.type === 'CallExpression' && filter.callee.type === 'Identifier') return { name: filter.callee.value, args: filter.args }
  throw unsupported('a filter that is not a name')
}

/** Test behind a filter name of `respell`, or null. */
export function testOfFilter(name: string): { readonly test: string; readonly negated: boolean } | null {
  const match = /^wp__(is|isnot)__(.+)$/.exec(name)
  return match === null ? null : { test: match[2] as string, negated: match[1] === 'isnot' }
}

/** Errors: `TemplateError` of kind unsupported, naming the construct. */
export function parseTemplate(template: string): readonly Node[] {
  const source = respellTemplate(template)
  let body: readonly Node[]
  try {
    body = parse(tokenize(source)).body as unknown as readonly Node[]
  } catch (cause) {
    if (cause instanceof TemplateError) throw cause
    throw new TemplateError('unsupported', `a construct that the parser does not know (${cause instanceof Error ? cause.message : String(cause)})`, { cause })
  }
  for (const node of body) check(node, true)
  return body
}

const MARKUP: ReadonlySet<string> = new Set(['safe'])
const GLOBALS_REFUSED: ReadonlySet<string> = new Set(['cycler', 'joiner', 'lipsum', 'self', 'super'])
const LITERAL_TYPES: ReadonlySet<string> = new Set(['IntegerLiteral', 'FloatLiteral', 'StringLiteral'])

/** `printed`: the value of the node is printed as it is, so that marking it safe changes nothing. */
function check(node: Node, printed = false): void {
  switch (node.type) {
    case 'FilterExpression':
    case 'FilterStatement':
      checkFilter(node.filter, printed)
      break
    case 'TestExpression':
      if (!TESTS.has(node.test.value)) throw unsupported(`the test "${node.test.value}"`)
      break
    case 'CallExpression':
      checkCall(node)
      break
    case 'Set':
      checkAssignee(node.assignee, node.value === null)
      break
    case 'For':
      checkTarget(node.loopvar)
      break
  }
  for (const child of childrenOf(node)) check(child, printsChild(node, child))
}

/** Bodies print what stands in them. */
function printsChild(node: Node, child: Node): boolean {
  if ('body' in node && node.body.includes(child)) return true
  return (node.type === 'If' && node.alternate.includes(child)) || (node.type === 'For' && node.defaultBlock.includes(child))
}

function checkFilter(filter: Node, printed: boolean): void {
  const { name, args } = filterParts(filter)
  const test = testOfFilter(name)
  if (test !== null) {
    if (!TESTS.has(test.test)) throw unsupported(`the test "${test.test}"`)
  } else if (name !== `${OWN_PREFIX}same` && !TEXT_FILTERS.has(name) && !SEQUENCE_FILTERS.has(name)) throw unsupported(`the filter "${name}"`)
  if (MARKUP.has(name) && !printed) throw unsupported(`the filter "${name}" elsewhere than at the end of an output`)
  const chosen = args[name === 'map' || name === 'select' || name === 'reject' ? 0 : 1]
  if (chosen?.type !== 'StringLiteral') return
  if (name === 'map' && !TEXT_FILTERS.has(chosen.value) && !SEQUENCE_FILTERS.has(chosen.value)) throw unsupported(`the filter "${chosen.value}"`)
  if (/^(?:select|reject)(?:attr)?$/.test(name) && !TESTS.has(chosen.value)) throw unsupported(`the test "${chosen.value}"`)
}

function checkCall(node: CallNode): void {
  const { callee, args } = node
  if (callee.type === 'MemberExpression' && !callee.computed && callee.property.type === 'Identifier') {
    const name = callee.property.value
    if (UNSUPPORTED_METHODS.has(name)) throw unsupported(`the method ".${name}()"`)
    if (callee.object.type === 'StringLiteral' && !KNOWN_METHODS.has(name)) throw unsupported(`the method ".${name}()"`)
  }
  if (callee.type !== 'Identifier') return
  if (GLOBALS_REFUSED.has(callee.value)) throw unsupported(`the function "${callee.value}()"`)
  const format = args[0]
  if (callee.value === 'strftime_now' && format?.type === 'StringLiteral') {
    const directive = unsupportedDirective(format.value)
    if (directive !== null) throw unsupported(`the time directive "${directive}"`)
  }
}

function checkAssignee(assignee: Node, isBlock: boolean): void {
  if (isBlock && assignee.type === 'FilterExpression') {
    checkAssignee(assignee.operand, true)
    return
  }
  if (assignee.type === 'MemberExpression' && !assignee.computed && assignee.object.type === 'Identifier' && assignee.property.type === 'Identifier') return
  checkTarget(assignee)
}

function checkTarget(target: Node): void {
  if (target.type === 'Identifier') return
  if (target.type !== 'TupleLiteral') throw unsupported('an assignment to something else than a name, a tuple of names or an attribute of a namespace')
  target.value.forEach(checkTarget)
}

function isNode(value: unknown): value is Node {
  return typeof value === 'object' && value !== null && typeof (value as { type?: unknown }).type === 'string' && !LITERAL_TYPES.has((value as Node).type)
}

function childrenOf(node: Node): Node[] {
  const children: Node[] = []
  const collect = (value: unknown): void => {
    if (Array.isArray(value)) value.forEach(collect)
    else if (value instanceof Map) {
      for (const [key, item] of value) {
        collect(key)
        collect(item)
      }
    } else if (isNode(value)) children.push(value)
  }
  for (const [field, value] of Object.entries(node)) if (field !== 'operator' && field !== 'filter') collect(value)
  if ('filter' in node) collect(filterParts(node.filter).args)
  return children
}
