/** Calls written as JSON: `{"name": …, "arguments": …}`, alone, in a list, or one behind the other. */
import { itemsOf, membersOf, repaired, valuesOf } from './json-text.ts'
import type { ToolCall } from './output-parser.ts'

export interface JsonCallRules {
  /** A call without arguments has none. */
  readonly nameOnly: boolean
  /** What was cut is closed where it stands. */
  readonly repairs: boolean
}

/** The call that an object is. */
export function callOf(object: string, nameOnly: boolean): ToolCall | null {
  const members = membersOf(object)
  const name = members?.get('name')
  if (members === null || name === undefined || !name.startsWith('"')) return null
  const given = members.get('arguments') ?? members.get('parameters')
  if (given === undefined && !nameOnly) return null
  return { name: JSON.parse(name) as string, arguments: given ?? '{}' }
}

/** The calls in the text of a block. Cut: it ended before its end. Null when there are none to be read. */
export function jsonCalls(body: string, rules: JsonCallRules, cut: boolean): readonly ToolCall[] | null {
  const text = body.trim()
  const values = valuesOf(text)
  if (values === null) return null
  const calls = values.complete.flatMap((value) => callsOf(value, rules.nameOnly) ?? [])
  if (values.rest !== '') {
    if (!cut) return null
    calls.push(...cutCalls(values.rest, rules))
  }
  return calls.length === 0 ? null : calls
}

/** The calls of one complete value. */
export function callsOf(value: string, nameOnly: boolean): readonly ToolCall[] | null {
  if (value.startsWith('{')) {
    const call = callOf(value, nameOnly)
    return call === null ? null : [call]
  }
  const items = itemsOf(value)
  if (items === null || items.rest !== '') return null
  const calls = items.complete.map((item) => callOf(item, nameOnly))
  return calls.length > 0 && calls.every((call) => call !== null) ? (calls as ToolCall[]) : null
}

function cutCalls(rest: string, rules: JsonCallRules): readonly ToolCall[] {
  if (rules.repairs) {
    const whole = repaired(rest)
    const calls = whole === null ? null : callsOf(whole, rules.nameOnly)
    if (calls !== null) return calls
  }
  if (!rest.startsWith('[')) return []
  return itemsOf(rest)?.complete.flatMap((item) => callOf(item, rules.nameOnly) ?? []) ?? []
}
