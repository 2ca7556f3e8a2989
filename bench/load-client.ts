/** One turn of a load client in a process of its own: it prints its figures as the last line, as JSON. */
import { spawn } from 'node:child_process'

interface Figures {
  readonly completed: number
  readonly tokensPerRequest: number
}

export interface LoadClient {
  readonly file: string
  readonly args: readonly string[]
  readonly env: NodeJS.ProcessEnv
  /** How long it loads; it has a minute more to end. */
  readonly seconds: number
  /** Names the turn in errors. */
  readonly what: string
  /** What each answer must have. */
  readonly tokensPerRequest: number
}

/** Errors: no result, nothing completed, answers of the wrong length. */
export async function runLoadClient<Turn extends Figures>({ what, tokensPerRequest, ...client }: LoadClient): Promise<Turn> {
  const { output, errors } = await outputOf(client)
  const line = output.trim().split('\n').at(-1) ?? ''
  if (!line.startsWith('{')) throw new Error(`${what}: the client gave no result: ${errors.slice(-800)}`)
  const turn = JSON.parse(line) as Turn
  if (turn.completed === 0) throw new Error(`${what}: no request completed: ${errors.slice(-800)}`)
  if (turn.tokensPerRequest !== tokensPerRequest) throw new Error(`${what}: ${turn.tokensPerRequest} tokens per request instead of ${tokensPerRequest}`)
  return turn
}

function outputOf({ file, args, env, seconds }: Pick<LoadClient, 'file' | 'args' | 'env' | 'seconds'>): Promise<{ output: string; errors: string }> {
  return new Promise((resolve, reject) => {
    const child = spawn(file, args, { env, stdio: ['ignore', 'pipe', 'pipe'], timeout: (seconds + 60) * 1000, killSignal: 'SIGKILL' })
    let output = ''
    let errors = ''
    child.stdout.on('data', (chunk: Buffer) => { output += chunk.toString() })
    child.stderr.on('data', (chunk: Buffer) => { errors += chunk.toString() })
    child.once('error', reject)
    child.once('close', () => resolve({ output, errors }))
  })
}
