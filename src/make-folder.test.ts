/** Goal: folders are made as asked, and a place that takes none is told at once. */
import assert from 'node:assert/strict'
import { mkdtemp, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { makeFolder } from './make-folder.ts'

test('a folder is made with its parents, by several at once, and once more', async (context) => {
  const root = await mkdtemp(join(tmpdir(), 'warmpath-folder-'))
  context.after(() => rm(root, { recursive: true }))
  const path = join(root, 'a', 'b', 'c')
  await Promise.all([makeFolder(path), makeFolder(path), makeFolder(join(root, 'a', 'b'))])
  await makeFolder(path)
  assert.ok((await stat(path)).isDirectory())
})

test('a file in the way and a parent that takes no folders are errors', async (context) => {
  const root = await mkdtemp(join(tmpdir(), 'warmpath-folder-'))
  context.after(() => rm(root, { recursive: true }))
  const file = join(root, 'file')
  await writeFile(file, '')
  await assert.rejects(makeFolder(file), { code: 'EEXIST' })
  await assert.rejects(makeFolder(join(file, 'below')), { code: 'ENOTDIR' })
  if (process.platform === 'linux') await assert.rejects(makeFolder('/proc/none/below'), { code: 'ENOENT' })
})
