/** Our command line as it is at another git ref: built in a temporary worktree, with the dependencies of this tree. */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { repoRoot } from '../test/repo-root.ts'

export interface OtherRef {
  readonly cliPath: string
  remove(): void
}

/** Errors: a ref that is not there, or that does not compile. */
export function buildOtherRef(ref: string): OtherRef {
  const folder = mkdtempSync(join(tmpdir(), 'warmpath-ref-'))
  const remove = (): void => {
    execFileSync('git', ['worktree', 'remove', '--force', folder], { cwd: repoRoot })
    rmSync(folder, { recursive: true, force: true })
  }
  execFileSync('git', ['worktree', 'add', '--quiet', '--detach', folder, ref], { cwd: repoRoot, stdio: ['ignore', 'ignore', 'inherit'] })
  try {
    symlinkSync(join(repoRoot, 'node_modules'), join(folder, 'node_modules'))
    execFileSync(join(repoRoot, 'node_modules', '.bin', 'tsc'), ['-p', 'tsconfig.json', '--outDir', 'dist'], { cwd: folder, stdio: ['ignore', 'inherit', 'inherit'] })
  } catch (error) {
    remove()
    throw error
  }
  return { cliPath: join(folder, 'dist', 'cli', 'main.js'), remove }
}
