/** What the API server answered instead of what was asked for. */

/** An answer that is none of 2xx. */
export class KubeError extends Error {
  readonly status: number
  constructor(status: number, message: string) {
    super(message)
    this.status = status
  }
}
