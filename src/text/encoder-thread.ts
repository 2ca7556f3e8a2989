/** The thread that tokenizes long texts in plain JavaScript: one job after the other, in order. */
import { parentPort, workerData } from 'node:worker_threads'
import { createPureTokenizer } from './encoder.ts'

const tokenizer = await createPureTokenizer(JSON.parse(workerData as string) as object)

parentPort?.on('message', (job: { id: number; text: string; addSpecialTokens: boolean }) => {
  try {
    const ids = Uint32Array.from(tokenizer.encode(job.text, { add_special_tokens: job.addSpecialTokens }).ids)
    parentPort?.postMessage({ id: job.id, ids }, [ids.buffer])
  } catch (cause) {
    parentPort?.postMessage({ id: job.id, error: cause instanceof Error ? cause.message : String(cause) })
  }
})
