// Compiles xxh3.ts and writes the bytes, as base64, to src/hashing/kernel-bytes.ts. `--check` compares instead of writing.
import { readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const folder = dirname(fileURLToPath(import.meta.url))
const target = join(folder, '..', 'src', 'hashing', 'kernel-bytes.ts')

/** The compiled module's bytes. */
export async function compile() {
  const { default: asc } = await import('assemblyscript/asc')
  const source = readFileSync(join(folder, 'xxh3.ts'), 'utf8')
  let binary = null
  const { error, stderr } = await asc.main(
    ['xxh3.ts', '--outFile', 'kernel.wasm', '--optimizeLevel', '3', '--shrinkLevel', '0', '--converge', '--runtime', 'stub', '--noAssert', '--enable', 'simd', '--use', 'abort='],
    {
      readFile: (name) => (name === 'xxh3.ts' ? source : null),
      writeFile: (name, contents) => { if (name === 'kernel.wasm') binary = contents },
      listFiles: () => [],
    },
  )
  if (error !== null || binary === null) throw new Error(`the kernel does not compile: ${stderr.toString()}`)
  return binary
}

/** The text of kernel-bytes.ts for these bytes. */
export function moduleText(binary) {
  const lines = Buffer.from(binary).toString('base64').match(/.{1,120}/g) ?? []
  return [
    '/** The compiled hashing kernel as base64, written by `kernel/build.mjs` from `kernel/xxh3.ts`. */',
    'export const kernelBase64 =',
    ...lines.map((line, index) => `  '${line}'${index + 1 < lines.length ? ' +' : ''}`),
    '',
  ].join('\n')
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const binary = await compile()
  const text = moduleText(binary)
  if (process.argv.includes('--check')) {
    if (readFileSync(target, 'utf8') !== text) throw new Error('src/hashing/kernel-bytes.ts is not what kernel/xxh3.ts compiles to')
  } else writeFileSync(target, text)
  process.stdout.write(`${binary.length} bytes\n`)
}
