/** The contract between the golden runner and the checks of each fixture kind. */

/** The outcome of one case. `skipped` carries the name of what is not built yet. */
export type GoldenOutcome =
  | { readonly kind: 'passed' }
  | { readonly kind: 'failed'; readonly message: string }
  | { readonly kind: 'skipped'; readonly reason: string }

/** Runs the cases of one fixture file; `document` was parsed losslessly (integers beyond 2^53 are bigints, others numbers). */
export interface GoldenKind {
  readonly name: string
  run(document: GoldenDocument): Iterable<{ readonly id: string; readonly outcome: GoldenOutcome }>
}

export type GoldenDocument = { readonly kind: string } & Readonly<Record<string, unknown>>
