/** From a file to a checked policy, as a fresh copy each time. */
import { statSync } from 'node:fs'
import * as nodeModule from 'node:module'
import { resolve as resolvePath } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { policyProblem, type Policy } from '../policies/contract.ts'
import { generationMark, load, resolve } from './policy-hooks.ts'
import { syntaxErrorLine } from './syntax-line.ts'

/** Why a file gives no policy: file, line where one is known, reason and mend, in one line. */
export class PolicyFileError extends Error {
  override readonly name = 'PolicyFileError'
}

/** Largest policy file. Units: bytes. */
const sizeMax = 1_048_576
/** Longest time until a file's own statements are done. */
const deadlineMs = 10_000
let generation = 0
let hasHooks = false

/** Hooks stay for the life of the process; a process without policies has none. */
function installHooks(): void {
  if (hasHooks) return
  hasHooks = true
  const { registerHooks } = nodeModule as { readonly registerHooks?: (hooks: { resolve: typeof resolve; load: typeof load }) => void }
  if (registerHooks !== undefined) registerHooks({ resolve, load })
  else nodeModule.register(new URL('./policy-hooks.js', import.meta.url))
}

/**
 * The default export of a `.js`, `.mjs`, `.ts` or `.mts` file, which is an ES module. Its relative imports are read anew, too.
 *
 * Bounds: 1 MiB, 10 s. Every call keeps the copies before it in memory, as Node forgets no module.
 * Errors: `PolicyFileError`; nothing else.
 */
export async function loadPolicy(file: string): Promise<Policy> {
  const path = resolvePath(file)
  if (!/\.m?[jt]s$/.test(path)) throw new PolicyFileError(`${file}: is not a policy file; expected .js, .mjs, .ts or .mts`)
  checkSize(file, path)
  installHooks()
  generation += 1
  const url = `${pathToFileURL(path).href}?${generationMark}=${generation}`
  const { default: policy } = await imported(file, url)
  if (policy === undefined) throw new PolicyFileError(`${file}: has no default export; write export default definePolicy({ name, score })`)
  const problem = policyProblem(policy)
  if (problem !== null) throw new PolicyFileError(`${file}: the default export ${problem}`)
  return policy as Policy
}

function checkSize(file: string, path: string): void {
  let size: number
  try {
    size = statSync(path).size
  } catch (error) {
    throw new PolicyFileError(`${file}: cannot be read (${(error as NodeJS.ErrnoException).code ?? String(error)}); check the path and its permissions`)
  }
  if (size > sizeMax) throw new PolicyFileError(`${file}: ${size} bytes; at most ${sizeMax} are read`)
}

async function imported(file: string, url: string): Promise<{ readonly default?: unknown }> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => reject(new PolicyFileError(`${file}: its own statements are not done after ${deadlineMs / 1000} s; a policy must not wait for anything`)), deadlineMs)
  })
  try {
    return await Promise.race([import(url) as Promise<{ readonly default?: unknown }>, late])
  } catch (error) {
    throw error instanceof PolicyFileError ? error : new PolicyFileError(await reasonOf(file, error))
  } finally {
    clearTimeout(timer)
  }
}

const markPattern = new RegExp(`\\?${generationMark}=\\d+`, 'g')

/** `FILE:LINE: MESSAGE` of whatever an import threw. */
async function reasonOf(file: string, error: unknown): Promise<string> {
  if (!(error instanceof Error)) return `${file}: threw ${String(error)}`
  const message = (error.message.replace(markPattern, '').split('\n')[0] ?? '').replaceAll(/file:\/\/(\/[^\s']+)/g, '$1')
  // A hook has named file and line itself.
  if (/^(?:\/|[A-Za-z]:\\)/.test(message)) return message
  const place = new RegExp(`(file:[^\\s()]+)\\?${generationMark}=\\d+:(\\d+)`).exec(error.stack ?? '')
  const text = `${error.name === 'Error' ? '' : `${error.name}: `}${message}`
  if (place?.[1] !== undefined) return `${fileURLToPath(place[1])}:${place[2]}: ${text}`
  const line = error instanceof SyntaxError && /\.m?js$/.test(file) ? await syntaxErrorLine(file) : null
  return `${file}${line === null ? '' : `:${line}`}: ${text}`
}
