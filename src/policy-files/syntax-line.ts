/** The line of a syntax error. `import` does not tell it; another Node that only checks does. */
import { execFile } from 'node:child_process'
import { copyFileSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const deadlineMs = 5000

/** The first line at which a JavaScript module is not valid; null: none, or it could not be found out. Never rejects. */
export async function syntaxErrorLine(path: string): Promise<number | null> {
  let folder: string | null = null
  try {
    folder = mkdtempSync(join(tmpdir(), 'warmpath-check-'))
    // Under this name it is a module, whatever package is around the original.
    const copy = join(folder, 'policy.mjs')
    copyFileSync(path, copy)
    const said = await new Promise<string>((resolve) => {
      execFile(process.execPath, ['--check', copy], { timeout: deadlineMs, env: {} }, (_error, _stdout, stderr) => resolve(stderr))
    })
    const line = /policy\.mjs:(\d+)/.exec(said)?.[1]
    return line === undefined ? null : Number(line)
  } catch {
    return null
  } finally {
    if (folder !== null) rmSync(folder, { recursive: true, force: true })
  }
}
