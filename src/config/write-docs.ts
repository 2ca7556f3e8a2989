/** `npm run docs`: writes docs/options.md. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { optionsPage } from './options-page.ts'

const folder = join(process.cwd(), 'docs')
mkdirSync(folder, { recursive: true })
writeFileSync(join(folder, 'options.md'), optionsPage())
process.stdout.write('docs/options.md written\n')
