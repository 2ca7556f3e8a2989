/** The real Dynamo in a Python virtual environment, installed once into a git-ignored folder or named by `WARMPATH_DYNAMO_VENV`. */
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { repoRoot } from '../test/repo-root.ts'

/** The release that the interop runs are pinned to. */
export const dynamoVersion = '1.6.1'

/** Earlier releases, for scenarios with several generations, and the variable that names where one is installed. */
const olderVariables = { '1.1.1': 'WARMPATH_DYNAMO_VENV_11', '1.3.1': 'WARMPATH_DYNAMO_VENV_13' } as const
export type OlderVersion = keyof typeof olderVariables

/** What Dynamo's entry points import: its own list of dependencies names a package that the public index lacks. */
const companions = [
  'aiohttp', 'certifi', 'msgspec', 'prometheus-client', 'pyzmq', 'redis<9', 'tqdm', 'typing-extensions', 'zstandard', 'tokenizers',
  'transformers', 'pyyaml', 'uvloop',
]

export interface DynamoInstallation {
  readonly python: string
  /** A tiny model folder: tokenizer, chat template, config, no weights. */
  readonly modelPath: string
}

/** Finds or installs it. Returns a reason instead when that cannot be done here. */
export function prepareDynamo(): DynamoInstallation | { readonly unavailable: string } {
  const python = prepareVersion(dynamoVersion, process.env['WARMPATH_DYNAMO_VENV'])
  if (typeof python !== 'string') return python
  const modelPath = join(repoRoot, '.venv', 'tiny-model')
  if (!existsSync(join(modelPath, 'generation_config.json'))) {
    mkdirSync(dirname(modelPath), { recursive: true })
    const failure = run(python, [join(repoRoot, 'interop', 'python', 'make_model.py'), modelPath])
    if (failure !== null) return { unavailable: `the tiny model could not be made: ${failure}` }
  }
  return { python, modelPath }
}

/** Finds or installs an earlier release; once per process. */
export function prepareOlder(version: OlderVersion, current: DynamoInstallation): DynamoInstallation | { readonly unavailable: string } {
  const known = prepared.get(version)
  if (known !== undefined) return known
  const python = prepareVersion(version, process.env[olderVariables[version]])
  const result = typeof python === 'string' ? { python, modelPath: current.modelPath } : python
  prepared.set(version, result)
  return result
}

const prepared = new Map<OlderVersion, DynamoInstallation | { readonly unavailable: string }>()

/** The interpreter that has a release. */
function prepareVersion(version: string, named: string | undefined): string | { readonly unavailable: string } {
  const venv = named ?? join(repoRoot, '.venv', `dynamo-${version}`)
  const python = join(venv, 'bin', 'python')
  const stamp = join(venv, '.warmpath-complete')
  if (named === undefined && !existsSync(stamp)) {
    const failure = install(version, venv, python)
    if (failure !== null) return { unavailable: failure }
    writeFileSync(stamp, `${version}\n`)
  }
  const probe = run(python, ['-c', 'import dynamo.runtime, dynamo.llm'])
  return probe === null ? python : { unavailable: `Dynamo ${version} cannot be imported by ${python}: ${probe}` }
}

function install(version: string, venv: string, python: string): string | null {
  process.stdout.write(`installing Dynamo ${version} into ${venv} (about a minute, 1 GB)\n`)
  mkdirSync(dirname(venv), { recursive: true })
  return run('python3', ['-m', 'venv', venv]) ??
    run(python, ['-m', 'pip', 'install', '-q', `ai-dynamo-runtime==${version}`]) ??
    run(python, ['-m', 'pip', 'install', '-q', '--no-deps', `ai-dynamo==${version}`]) ??
    run(python, ['-m', 'pip', 'install', '-q', ...companions])
}

/** Null when the command succeeds, else its last words. */
function run(command: string, args: readonly string[]): string | null {
  const child = spawnSync(command, args, { encoding: 'utf8', timeout: 15 * 60_000 })
  if (child.error !== undefined) return `${command}: ${child.error.message}`
  return child.status === 0 ? null : (child.stderr || child.stdout).trim().split('\n').slice(-3).join(' ') || `${command} ended with ${child.status}`
}
