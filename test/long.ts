/** `npm run test:long [-- OPERATIONS [SEED]]`: the router against its oracle, a million random operations; prints the seed, and what was compared. */
import { runRandomOperations } from './random-operations.ts'

const count = Number(process.argv[2] ?? 1_000_000)
const seed = Number(process.argv[3] ?? Date.now() % 2 ** 32)
if (!Number.isSafeInteger(count) || count < 1 || !Number.isSafeInteger(seed)) {
  process.stderr.write('usage: npm run test:long [-- OPERATIONS [SEED]]\n')
  process.exitCode = 2
} else {
  process.stdout.write(`seed ${seed}\n`)
  let told = 0
  const counts = runRandomOperations(seed, count, ({ operations }) => {
    if (operations - told < count / 10) return
    told = operations
    process.stdout.write(`${operations} operations\n`)
  })
  process.stdout.write(`${JSON.stringify(counts)}\nno difference\n`)
}
