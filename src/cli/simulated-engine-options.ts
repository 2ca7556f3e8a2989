/** From the options of `warmpath start` and `warmpath worker` to engine settings. */
import type { WorkerValues } from '../config/table.ts'
import { UsageError } from '../config/usage-error.ts'
import { engineSettings, type EngineSettings } from '../engines/simulated/settings.ts'

type EngineValues = Pick<WorkerValues, 'blockSize' | 'blocks' | 'dpSize' | 'maxNumSeqs' | 'maxNumBatchedTokens' | 'outputTokens' | 'prefillMsPerToken' | 'decodeMsPerToken' | 'decodeMsPerSequence' | 'speedup'>

/** `more` wins. Errors: `UsageError` for values that do not go together. */
export function engineSettingsOf(values: EngineValues, more: Partial<EngineSettings> = {}): EngineSettings {
  try {
    return engineSettings({
      blockSize: values.blockSize,
      blocks: values.blocks,
      dpSize: values.dpSize,
      maxSequences: values.maxNumSeqs,
      maxBatchedTokens: values.maxNumBatchedTokens,
      naturalOutputTokens: values.outputTokens,
      prefillTokenMs: values.prefillMsPerToken,
      stepBaseMs: values.decodeMsPerToken,
      decodeSequenceMs: values.decodeMsPerSequence,
      speedup: values.speedup,
      ...more,
    })
  } catch (error) {
    if (error instanceof RangeError) throw new UsageError(error.message)
    throw error
  }
}
