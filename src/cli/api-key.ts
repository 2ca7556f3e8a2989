/** `warmpath api-key NAME`: makes an API key and the line of it for the file of --api-keys-file. */
import { apiKeyLine, createApiKey, isApiKeyName } from '../openai/api-keys.ts'
import { UsageError, shown } from '../config/usage-error.ts'

const help = `Usage: warmpath api-key NAME

Makes a new API key. The key goes to standard error, for its user; the line with its hash
goes to standard output, for the file of --api-keys-file:

  warmpath api-key alice >> keys.txt
`

/** Gives the exit code. Errors: `UsageError` without a name that a line can have. */
export function runApiKey(argv: readonly string[]): number {
  const [name, ...rest] = argv
  if (name === '--help' || name === '-h') {
    process.stdout.write(help)
    return 0
  }
  if (name === undefined || rest.length > 0) throw new UsageError('api-key needs one name; write warmpath api-key NAME')
  if (!isApiKeyName(name)) throw new UsageError(`the name ${shown(name)} may have 1 to 128 characters, without blanks and colons`)
  const key = createApiKey()
  process.stderr.write(`key of ${name}, shown this once: ${key}\n`)
  process.stdout.write(`${apiKeyLine(name, key)}\n`)
  return 0
}
