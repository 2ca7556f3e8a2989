/** What a parser of a model's output takes and gives: text in pieces, split into content, reasoning and tool calls. */

/** One complete call, or what a demanded one has got since. */
export interface ToolCall {
  readonly name: string
  /** A JSON text, as the model wrote it where that was JSON. */
  readonly arguments: string
  /** The arguments go on those of the call before. */
  readonly continues?: true
  /** As the model named it; most families name none. */
  readonly id?: string
  /** The form of the id to be made, where it is not `call-<uuid>`. */
  readonly idForm?: 'uuid' | 'call_hex'
}

/** What became certain with one piece of text. */
export interface ParsedDelta {
  readonly content: string
  readonly reasoning: string
  readonly toolCalls: readonly ToolCall[]
  /** A call was lost because the output ended within it. */
  readonly truncated?: boolean
}

/** State of one answer. Pieces may be cut anywhere: the deltas put together are the same. */
export interface OutputParser {
  /** A thought has shown and has not ended with the text so far: what comes next counts as reasoning, its end marker included. */
  readonly thinking: boolean
  push(text: string): ParsedDelta
  /** The output has ended: what was held back is settled. Comes once. */
  end(): ParsedDelta
}

/** The parsers that a model card names, in the original's words; null where it names none. */
export interface ParserNames {
  readonly toolCall: string | null
  readonly reasoning: string | null
}

/** A tool of the request. */
export interface ToolDefinition {
  readonly name: string
  /** JSON schema of its arguments. */
  readonly parameters: unknown
}

export type ToolChoice = 'none' | 'auto' | 'required' | { readonly name: string }

/** What of the request decides how its output is read. */
export interface ParseRequest {
  readonly tools: readonly ToolDefinition[]
  readonly toolChoice: ToolChoice
  /** At most one call is wanted: `parallel_tool_calls: false`. */
  readonly singleCall: boolean
  /** The answer must follow a JSON schema. */
  readonly guided: boolean
  /** The prompt as the model sees it; its end tells whether the answer begins within a thought. */
  readonly prompt: string
  /** What the template was told: `enable_thinking`, `thinking`, … and `reasoning_effort`. */
  readonly templateArguments: { readonly [name: string]: unknown }
}

export const nothingParsed: ParsedDelta = { content: '', reasoning: '', toolCalls: [] }
