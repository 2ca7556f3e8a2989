/** What is done when the prefill stage fails. */
import { isRetryableElsewhere, type Failure } from '../model/failure.ts'

/** `--on-prefill-error`: what may be tried, in this order; neither = fail. */
export interface PrefillErrorPolicy {
  readonly retry: boolean
  readonly decodeOnly: boolean
}

/** Reads `retry,decode-only`, `retry`, `decode-only` or `fail`; null for anything else. */
export function parsePrefillErrorPolicy(text: string): PrefillErrorPolicy | null {
  const words = text.split(',').map((word) => word.trim())
  if (words.length === 1 && words[0] === 'fail') return { retry: false, decodeOnly: false }
  if (words.length === 0 || new Set(words).size !== words.length || words.some((word) => word !== 'retry' && word !== 'decode-only')) return null
  return { retry: words.includes('retry'), decodeOnly: words.includes('decode-only') }
}

export interface PrefillFailureFacts {
  readonly policy: PrefillErrorPolicy
  readonly failure: Failure
  /** The decode leg was started with this hand-over. */
  readonly handedOver: boolean
  readonly retriesLeft: number
  /** False: the engine cannot compute a prompt on a decode worker (SGLang). */
  readonly decodeOnlyPossible: boolean
  /** The caller named the prefill worker. */
  readonly pinned: boolean
}

/**
 * Transport, unavailability, overload, timeout and internal errors may be mended by another worker; a bad request never. After a hand-over both
 * stages are to be done anew.
 */
export function afterPrefillFailure(facts: PrefillFailureFacts): 'retry' | 'decode-only' | 'fail' {
  const { failure, policy } = facts
  const mendable = isRetryableElsewhere(failure) || failure.class === 'Internal' || failure.class === 'CapacityExhausted' || failure.class === 'DeadlineExceeded' || failure.class === 'BackendProtocol'
  if (!mendable) return 'fail'
  if (policy.retry && facts.retriesLeft > 0 && !facts.pinned) return 'retry'
  return policy.decodeOnly && facts.decodeOnlyPossible && !facts.handedOver ? 'decode-only' : 'fail'
}
