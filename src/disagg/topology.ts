/** Where KV blocks may travel: constraints on the decode worker that follow from the chosen prefill worker. */

/** A worker's rule, from its card. Source: Dynamo 1.6.1 `kv_transfer_*`. */
export interface TransferRule {
  readonly domain: string
  readonly enforcement: 'required' | 'preferred' | null
  readonly preferredWeight: number | null
}

export interface TransferSource {
  readonly rule: TransferRule | null
  readonly domains: ReadonlyMap<string, string>
}

export type TransferConstraint =
  | { readonly kind: 'none' }
  | { readonly kind: 'required'; readonly taint: string }
  | { readonly kind: 'preferred'; readonly taint: string; readonly weight: number }
  /** The rule cannot be applied; the request goes unconstrained. */
  | { readonly kind: 'unusable'; readonly problem: string }

export const topologyTaint = (domain: string, value: string): string => `dynamo.topology/${domain}=${value}`

/** The constraint that a prefill worker lays on the decode stage. */
export function transferConstraint({ rule, domains }: TransferSource): TransferConstraint {
  if (rule === null) return { kind: 'none' }
  const value = domains.get(rule.domain)
  if (value === undefined) return { kind: 'unusable', problem: `kv_transfer_domain is ${rule.domain}, which its topology_domains do not name` }
  const taint = topologyTaint(rule.domain, value)
  switch (rule.enforcement) {
    case 'required': return { kind: 'required', taint }
    case 'preferred':
      return rule.preferredWeight === null
        ? { kind: 'unusable', problem: 'kv_transfer_enforcement is preferred without kv_transfer_preferred_weight' }
        : { kind: 'preferred', taint, weight: Math.fround(rule.preferredWeight) }
    case null: return { kind: 'unusable', problem: 'kv_transfer_domain is set without kv_transfer_enforcement' }
  }
}

/** True when blocks of the prefill worker can reach at least one of the decode workers. */
export function canReachDecode(source: TransferSource, decodeTaints: Iterable<ReadonlySet<string>>): boolean {
  const constraint = transferConstraint(source)
  if (constraint.kind !== 'required') return true
  for (const taints of decodeTaints) if (taints.has(constraint.taint)) return true
  return false
}
