/** The Rust counterpart: built with cargo, when that is there, and run. */
import { execFileSync, spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { repoRoot } from '../../test/repo-root.ts'

/** Path of the built binary, or why there is none. `WARMPATH_BENCH_CARGO_TARGET`: another target folder. */
export function prepareCounterpart(say: (text: string) => void): { readonly binary: string; readonly rustc: string } | { readonly missing: string } {
  const probe = spawnSync('rustc', ['--version'], { encoding: 'utf8' })
  if (probe.error !== undefined || probe.status !== 0) return { missing: 'rustc and cargo are not installed' }
  const target = process.env['WARMPATH_BENCH_CARGO_TARGET'] ?? join(repoRoot, 'bench', 'rust', 'target')
  say('building the Rust counterpart (minutes the first time)')
  const built = spawnSync('cargo', ['build', '--release', '--locked', '-j2'], {
    cwd: join(repoRoot, 'bench', 'rust'), env: { ...process.env, CARGO_TARGET_DIR: target }, encoding: 'utf8',
  })
  if (built.error !== undefined || built.status !== 0) return { missing: `the counterpart does not build: ${(built.stderr ?? '').trim().split('\n').at(-1) ?? 'cargo is not installed'}` }
  return { binary: join(target, 'release', 'warmpath-bench-counterpart'), rustc: probe.stdout.trim() }
}

/** Runs a program that prints one line of JSON. Errors: it fails, or takes longer than ten minutes. */
export const jsonOf = <T>(file: string, args: readonly string[]): T =>
  JSON.parse(execFileSync(file, args, { encoding: 'utf8', timeout: 600_000, maxBuffer: 1 << 24, stdio: ['ignore', 'pipe', 'inherit'] })) as T
