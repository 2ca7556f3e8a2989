// Compiles the kernels and writes their bytes, as base64, into modules of src. `--check` compares instead of writing.
import { readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const folder = dirname(fileURLToPath(import.meta.url))

/** Source, the module its bytes go to, the name of the constant, and what the compiler is told besides. */
export const kernels = [
  { source: 'xxh3.ts', target: join(folder, '..', 'src', 'hashing', 'kernel-bytes.ts'), constant: 'kernelBase64', what: 'hashing kernel', flags: ['--enable', 'simd'] },
  { source: 'prefix-match.ts', target: join(folder, '..', 'src', 'index', 'match-kernel-bytes.ts'), constant: 'matchKernelBase64', what: 'prefix comparison', flags: ['--importMemory'] },
  { source: 'event-scan.ts', target: join(folder, '..', 'src', 'dynamo', 'wire', 'event-scan-bytes.ts'), constant: 'eventScanBase64', what: 'scan of KV events', flags: ['--importMemory', '--enable', 'simd'] },
]

/** The compiled module's bytes. */
export async function compile({ source, flags } = kernels[0]) {
  const { default: asc } = await import('assemblyscript/asc')
  const text = readFileSync(join(folder, source), 'utf8')
  let binary = null
  const { error, stderr } = await asc.main(
    [source, '--outFile', 'kernel.wasm', '--optimizeLevel', '3', '--shrinkLevel', '0', '--converge', '--runtime', 'stub', '--noAssert', ...flags, '--use', 'abort='],
    {
      readFile: (name) => (name === source ? text : null),
      writeFile: (name, contents) => { if (name === 'kernel.wasm') binary = contents },
      listFiles: () => [],
    },
  )
  if (error !== null || binary === null) throw new Error(`${source} does not compile: ${stderr.toString()}`)
  return binary
}

/** The text of the module that holds these bytes. */
export function moduleText(binary, { source, constant, what } = kernels[0]) {
  const lines = Buffer.from(binary).toString('base64').match(/.{1,120}/g) ?? []
  return [
    `/** The compiled ${what} as base64, written by \`kernel/build.mjs\` from \`kernel/${source}\`. */`,
    `export const ${constant} =`,
    ...lines.map((line, index) => `  '${line}'${index + 1 < lines.length ? ' +' : ''}`),
    '',
  ].join('\n')
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  for (const kernel of kernels) {
    const binary = await compile(kernel)
    const text = moduleText(binary, kernel)
    if (process.argv.includes('--check')) {
      if (readFileSync(kernel.target, 'utf8') !== text) throw new Error(`${kernel.target} is not what kernel/${kernel.source} compiles to`)
    } else writeFileSync(kernel.target, text)
    process.stdout.write(`${kernel.source}: ${binary.length} bytes\n`)
  }
}
