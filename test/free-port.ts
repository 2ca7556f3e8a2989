/** A port for a process that cannot take port 0. */
import { createServer } from 'node:net'

/** Below the range from which outgoing connections get theirs, so that none of them takes it in the meantime. */
const [first, count] = [20_000, 12_000]

/** A port that is free on all addresses now. Errors: none is. */
export async function freePort(): Promise<number> {
  for (let attempt = 0; attempt < 200; attempt += 1) {
    const port = first + Math.floor(Math.random() * count)
    if (await isFree(port)) return port
  }
  throw new Error(`no port between ${first} and ${first + count} is free`)
}

function isFree(port: number): Promise<boolean> {
  const server = createServer()
  return new Promise((resolve) => {
    server.once('error', () => resolve(false))
    server.listen(port, '0.0.0.0', () => server.close(() => resolve(true)))
  })
}
