/** Why a listener could not start, in words that name its option and the mend. */
import { UsageError } from '../config/usage-error.ts'

export interface Listening {
  /** How the port is called, such as `HTTP port`. */
  readonly what: string
  readonly host: string
  readonly port: number
  readonly portOption: string
  readonly hostOption: string
}

const noAddress = new Set(['ENOTFOUND', 'EADDRNOTAVAIL', 'EAI_AGAIN', 'EINVAL'])

/** The error to end the start with: `UsageError` for an address that this machine does not have; others as they are. */
export function listenError(error: unknown, { what, host, port, portOption, hostOption }: Listening): unknown {
  const { code } = error as NodeJS.ErrnoException
  if (code === 'EADDRINUSE' || code === 'EACCES') {
    return new Error(`${what} ${port} ${code === 'EACCES' ? 'may not be used' : 'is in use'}; give another with ${portOption}, or 0 for a free one`, { cause: error })
  }
  if (code !== undefined && noAddress.has(code)) return new UsageError(`${hostOption}: ${JSON.stringify(host)} is no address of this machine; give 127.0.0.1, or 0.0.0.0 for all of its addresses`)
  return error
}

/** The listener of `--http-host` and `--http-port`. */
export const httpListenError = (error: unknown, { httpHost, httpPort }: { readonly httpHost: string; readonly httpPort: number }): unknown =>
  listenError(error, { what: 'HTTP port', host: httpHost, port: httpPort, portOption: '--http-port', hostOption: '--http-host' })
