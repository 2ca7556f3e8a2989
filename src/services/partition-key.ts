/** What separates workers that know nothing of each other: a model in a routing group. */
export interface PartitionKey {
  readonly model: string
  readonly group: string
}

/** One text per key. */
export const keyText = ({ model, group }: PartitionKey): string => JSON.stringify([model, group])

/** The key in messages. */
export const keyName = ({ model, group }: PartitionKey): string => `model=${model} routing_group=${group}`

const byText = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0)

/** By model, then group. */
export const compareKeys = (a: PartitionKey, b: PartitionKey): number => byText(a.model, b.model) || byText(a.group, b.group)

/** Whether a filter of a query lets the key pass; left out: all pass. */
export const passesFilter = (key: PartitionKey, query: ReadonlyMap<string, string>): boolean =>
  (query.get('model_name') ?? key.model) === key.model && (query.get('routing_group') ?? key.group) === key.group
