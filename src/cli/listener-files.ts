/** Files of the HTTP listener, keys and certificates: read at the start, and anew when they change or on SIGHUP. What cannot be read then stays as it was. */
import { readFileSync, unwatchFile, watchFile } from 'node:fs'
import { createPrivateKey } from 'node:crypto'
import { createSecureContext } from 'node:tls'
import type { FrontendValues } from '../config/table.ts'
import { UsageError } from '../config/usage-error.ts'
import { ApiKeys } from '../openai/api-keys.ts'
import type { TlsMaterial } from '../openai/openai-server.ts'
import type { Log } from '../ports.ts'

/** Between two looks at a file; links as secrets are mounted by are followed. */
const lookMs = 2000

/** A file that cannot be read is told as for other files; what is wrong in it, in its own words. */
function unusable(error: unknown): string {
  const { code, message } = error as NodeJS.ErrnoException
  return code === undefined ? message : `cannot be read (${code}); check the path and its permissions`
}

type Paths = Pick<FrontendValues, 'apiKeysFile' | 'tlsCertPath' | 'tlsKeyPath' | 'tlsClientCaPath'>

export class ListenerFiles {
  keys: ApiKeys | null
  tls: TlsMaterial | null
  readonly #paths: Paths
  readonly #log: Log

  /** Errors: `UsageError` that names the option, for files that cannot be used. */
  constructor(paths: Paths, log: Log) {
    this.#paths = paths
    this.#log = log
    this.keys = this.#readKeys()
    this.tls = this.#readTls()
  }

  /** `onTls`: takes a new certificate. Returns what ends the watch. */
  watch(onTls: (tls: TlsMaterial) => void): () => void {
    const { apiKeysFile, tlsCertPath, tlsKeyPath, tlsClientCaPath } = this.#paths
    const again = (): void => {
      this.#attempt('API keys', () => {
        this.keys = this.#readKeys()
        return this.keys === null ? null : `${this.keys.size} API keys`
      })
      this.#attempt('the certificate', () => {
        const tls = this.#readTls()
        if (tls === null) return null
        onTls(tls)
        this.tls = tls
        return 'the certificate'
      })
    }
    const paths = [apiKeysFile, tlsCertPath, tlsKeyPath, tlsClientCaPath].filter((path): path is string => path !== null)
    if (paths.length === 0) return () => {}
    for (const path of paths) watchFile(path, { interval: lookMs, persistent: false }, again)
    process.on('SIGHUP', again)
    return () => {
      process.off('SIGHUP', again)
      for (const path of paths) unwatchFile(path, again)
    }
  }

  /** `read` says what it has taken, null: nothing of the kind. */
  #attempt(what: string, read: () => string | null): void {
    try {
      const taken = read()
      if (taken !== null) this.#log.info({ stage: 'http' }, `read anew: ${taken}`)
    } catch (error) {
      this.#log.error({ stage: 'http', reason: (error as Error).message }, `${what} could not be read anew; what was read before goes on`)
    }
  }

  #readKeys(): ApiKeys | null {
    const { apiKeysFile } = this.#paths
    if (apiKeysFile === null) return null
    try {
      return new ApiKeys(readFileSync(apiKeysFile, 'utf8'))
    } catch (error) {
      throw new UsageError(`--api-keys-file ${apiKeysFile}: ${unusable(error)}`)
    }
  }

  #readTls(): TlsMaterial | null {
    const { tlsCertPath, tlsKeyPath, tlsClientCaPath } = this.#paths
    if (tlsCertPath === null && tlsKeyPath === null) {
      if (tlsClientCaPath !== null) throw new UsageError('--tls-client-ca-cert-path needs --tls-cert-path and --tls-key-path')
      return null
    }
    if (tlsCertPath === null || tlsKeyPath === null) throw new UsageError('--tls-cert-path and --tls-key-path belong together; give both')
    const cert = readPem('--tls-cert-path', tlsCertPath)
    const key = readPem('--tls-key-path', tlsKeyPath)
    const tls: TlsMaterial = { cert, key, ...(tlsClientCaPath === null ? {} : { clientCa: readPem('--tls-client-ca-cert-path', tlsClientCaPath) }) }
    checkPem('--tls-cert-path', tlsCertPath, 'a certificate', () => createSecureContext({ cert }))
    checkPem('--tls-key-path', tlsKeyPath, 'a private key', () => createPrivateKey(key))
    try {
      createSecureContext({ cert, key, ...(tls.clientCa === undefined ? {} : { ca: tls.clientCa }) })
    } catch (error) {
      throw new UsageError(`the certificate of --tls-cert-path and the key of --tls-key-path cannot be used together: ${(error as Error).message}`)
    }
    return tls
  }
}

function readPem(option: string, path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    throw new UsageError(`${option} ${path}: ${unusable(error)}`)
  }
}

function checkPem(option: string, path: string, what: string, read: () => unknown): void {
  try {
    read()
  } catch (error) {
    throw new UsageError(`${option} ${path}: holds not ${what} in PEM form (${(error as Error).message}); give a file with -----BEGIN ... lines`)
  }
}
