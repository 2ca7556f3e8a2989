/** Names of the durable KV events of a component in JetStream. Source: Dynamo 1.1 to 1.3. */
import type { EndpointId } from '../../ports.ts'

/** Lower case; what is not `[a-z0-9_-]` becomes `_`; leading `_` go; what is left of them becomes `-`. Two names can become one. */
export const streamSlug = (name: string): string => name.toLowerCase().replace(/[^a-z0-9_-]/g, '_').replace(/^_+/, '').replaceAll('_', '-')

export interface DurableNames {
  readonly stream: string
  /** What the stream listens to. */
  readonly subjects: readonly string[]
  /** Where workers publish. */
  readonly eventSubject: string
  /** Object bucket of the snapshot. */
  readonly bucket: string
  /** Object in it. */
  readonly object: string
}

/** The names for the workers of an endpoint: those of its component. */
export function durableNames({ namespace, component }: EndpointId): DurableNames {
  const stream = streamSlug(`namespace.${namespace}.component.${component}.kv-events`)
  return {
    stream, subjects: [`${stream}.*`], eventSubject: `${stream}.kv-events`,
    bucket: streamSlug(`namespace.${namespace}.component.${component}-radix-bucket`), object: 'radix-state',
  }
}
