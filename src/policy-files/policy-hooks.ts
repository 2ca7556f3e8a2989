/**
 * Hooks of Node's module loader for policy files: fresh copies, TypeScript, and `warmpath` from wherever the file lies.
 *
 * A policy's URL carries its generation; so do the URLs of what it imports by relative path. Other modules are passed over.
 * Runs in the loader's own thread where Node has one, so it knows nothing of the process but files.
 */
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { fileURLToPath } from 'node:url'

/** Name of the query that marks a policy's modules. */
export const generationMark = 'warmpath-policy'

const ownModules: Readonly<Record<string, string>> = {
  warmpath: new URL('../index.js', import.meta.url).href,
  'warmpath/hashing': new URL('../hashing.js', import.meta.url).href,
}

interface ResolveContext {
  readonly parentURL?: string | undefined
}

const generationOf = (url: string): string | null => new RegExp(`\\?${generationMark}=(\\d+)$`).exec(url)?.[1] ?? null

/** Hook: what an import in a policy's module means. */
export function resolve<Context extends ResolveContext>(specifier: string, context: Context, next: (specifier: string, context: Context) => unknown): unknown {
  const { parentURL } = context
  const generation = parentURL === undefined ? null : generationOf(parentURL)
  if (generation === null || parentURL === undefined) return next(specifier, context)
  if (Object.hasOwn(ownModules, specifier)) return { url: ownModules[specifier], format: 'module', shortCircuit: true }
  if (!/^(?:\.{0,2}\/|file:)/.test(specifier)) return next(specifier, context)
  const url = new URL(specifier, parentURL)
  if (!/\.m?[jt]s$/.test(url.pathname)) return next(specifier, context)
  url.search = `?${generationMark}=${generation}`
  return { url: url.href, format: 'module', shortCircuit: true }
}

/** Hook: the text of a policy's module. Errors: messages begin with `FILE:LINE: `, or `FILE: `. */
export function load<Context>(url: string, context: Context, next: (url: string, context: Context) => unknown): unknown {
  if (generationOf(url) === null) return next(url, context)
  const path = fileURLToPath(url)
  const text = textOf(path)
  return { format: 'module', source: /\.m?ts$/.test(path) ? withoutTypes(path, text) : text, shortCircuit: true }
}

function textOf(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    throw new Error(`${path}: cannot be read (${(error as NodeJS.ErrnoException).code ?? String(error)}); check the path and its permissions`)
  }
}

interface TypeStripper {
  transformSync(source: string, options: { readonly mode: 'strip-only'; readonly module: true; readonly filename: string }): { readonly code: string }
}

function withoutTypes(path: string, text: string): string {
  const stripper = typeStripper(path)
  try {
    return stripper.transformSync(text, { mode: 'strip-only', module: true, filename: path }).code
  } catch (error) {
    const { message = String(error), startLine } = error as { readonly message?: string; readonly startLine?: number }
    throw new Error(`${path}${startLine === undefined ? '' : `:${startLine}`}: ${message}`)
  }
}

/** Beside this package, or beside the policy. Lines and columns stay as they are. */
function typeStripper(path: string): TypeStripper {
  for (const place of [import.meta.url, path]) {
    try {
      return createRequire(place)('@swc/wasm-typescript') as TypeStripper
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'MODULE_NOT_FOUND') throw error
    }
  }
  throw new Error(`${path}: TypeScript needs the package @swc/wasm-typescript: npm install @swc/wasm-typescript, or give a .js file`)
}
