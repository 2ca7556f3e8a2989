/** Which parser reads the output of a request: by the names on the model's card, the tools and the choice among them. */
import { deepseekV3, deepseekV31, deepseekV32, deepseekV4, deepseekV41 } from './deepseek-formats.ts'
import { GuidedCalls } from './guided-calls.ts'
import { HarmonyParser } from './harmony.ts'
import { anyJson, hermes, jamba, llama3Json, mistral, nemotronDeci, phi4, qwen25 } from './json-formats.ts'
import { InklingParser, inklingCalls } from './inkling.ts'
import { kimiK3 } from './kimi-k3-format.ts'
import { minimaxM3 } from './minimax-m3-format.ts'
import { MuseParser } from './muse.ts'
import type { OutputParser, ParseRequest, ParserNames } from './output-parser.ts'
import { isThinkingOn, reasoningFormats, type ReasoningFormat } from './reasoning-formats.ts'
import { plainStage, StagedParser, type SplitterChoice, type TextStage } from './staged-parser.ts'
import { gemma4, glm47, kimiK2, pythonic } from './tagged-formats.ts'
import type { ToolFormat } from './tool-format.ts'
import { ToolScanner } from './tool-scanner.ts'
import { minimaxM2, qwen3Coder } from './xml-formats.ts'

const toolFormats: Readonly<Record<string, ToolFormat>> = {
  hermes, qwen25, qwen3: hermes, llama3_json: llama3Json, mistral, phi4, jamba, inkling: inklingCalls, nemotron_deci: nemotronDeci, default: anyJson, pythonic,
  qwen3_coder: qwen3Coder, nemotron_nano: qwen3Coder, minimax_m2: minimaxM2,
  deepseek_v3: deepseekV3, deepseek_v3_1: deepseekV31, deepseek_v3_2: deepseekV32, deepseek_v4: deepseekV4, 'deepseek-v4': deepseekV4, deepseekv4: deepseekV4,
  minimax_m3: minimaxM3, 'minimax-m3': minimaxM3, minimax_m3_nom: minimaxM3, 'minimax-m3-nom': minimaxM3,
  glm45: glm47, glm47, kimi_k2: kimiK2, kimi_k25: kimiK2, gemma4, 'gemma-4': gemma4,
}

/** Calls are read with the thoughts, without tools, too, and then left out. `either`: one name on the card is enough. */
const unifiedFormats: Readonly<Record<string, { readonly format: ToolFormat; readonly either: boolean }>> = {
  deepseek_v41: { format: deepseekV41, either: false }, kimi_k3: { format: kimiK3, either: true }, 'kimi-k3': { format: kimiK3, either: true },
}

function unifiedFormat({ toolCall, reasoning }: ParserNames): ToolFormat | undefined {
  const found = [toolCall, reasoning].flatMap((name) => (name === null ? [] : (unifiedFormats[name] ?? [])))
  return found.length === 2 || found[0]?.either === true ? found[0]?.format : undefined
}

const harmony = 'harmony'
const gptOss = 'gpt_oss'
const inkling = 'inkling'
const muse = ['muse', 'muse_glimmer']

/** Names that are served, as a card may hold them. */
export const toolParserNames: readonly string[] = [...Object.keys(toolFormats), ...Object.keys(unifiedFormats), harmony, ...muse]
export const reasoningParserNames: readonly string[] = [...Object.keys(reasoningFormats), gptOss, 'minimax_append_think', inkling, ...muse]

/** What is wrong with the names of a card, for a warning; empty when nothing is. */
export function unknownParsers(names: ParserNames): readonly string[] {
  return [
    ...(names.toolCall !== null && !toolParserNames.includes(names.toolCall) ? [`tool_call_parser ${JSON.stringify(names.toolCall)}`] : []),
    ...(names.reasoning !== null && !reasoningParserNames.includes(names.reasoning) ? [`reasoning_parser ${JSON.stringify(names.reasoning)}`] : []),
  ]
}

const keepSpecialFor = {
  toolCall: [harmony, 'gemma4', 'gemma-4', 'kimi_k2', 'kimi_k25', 'minimax_m3', 'minimax-m3', 'minimax_m3_nom', 'minimax-m3-nom', inkling, ...muse],
  reasoning: [gptOss, inkling, ...muse, 'gemma4', 'gemma-4', 'kimi_k25', 'mistral', 'minimax_m3', 'minimax-m3', 'deepseek_v41'],
}

/** Their markers are special tokens, which must stay in the text. */
export const needsSpecialTokens = ({ toolCall, reasoning }: ParserNames): boolean =>
  (toolCall !== null && keepSpecialFor.toolCall.includes(toolCall)) || (reasoning !== null && keepSpecialFor.reasoning.includes(reasoning))

/** Makes the parser of one answer; undefined when the output is plain text. */
export function outputParserMaker(names: ParserNames, request: ParseRequest): (() => OutputParser) | undefined {
  const readsCalls = request.tools.length > 0 && request.toolChoice !== 'none'
  const demanded = readsCalls && request.toolChoice !== 'auto'
  if (names.toolCall === harmony || names.reasoning === gptOss) {
    const reads = { reasoning: names.reasoning === gptOss, calls: readsCalls && names.toolCall === harmony, singleCall: request.singleCall }
    return () => new HarmonyParser(demanded ? { ...reads, stage: new GuidedCalls(request.toolChoice, plainStage) } : reads)
  }
  const callsMax = !readsCalls ? 0 : request.singleCall ? 1 : Infinity
  if (muse.includes(names.toolCall ?? '') || muse.includes(names.reasoning ?? '')) {
    return () => new MuseParser(demanded ? { callsMax, stage: new GuidedCalls(request.toolChoice, plainStage) } : { callsMax })
  }
  const splitter = splitterOf(names, request)
  const unified = unifiedFormat(names)
  const format = unified ?? (readsCalls && names.toolCall !== null ? toolFormats[names.toolCall] : undefined)
  // A model whose template holds the marker: its thoughts stay in the content, marked.
  const appends = names.reasoning === 'minimax_append_think' && !request.guided && !demanded
  const isInkling = names.reasoning === inkling
  if (splitter === null && format === undefined && !demanded && !appends && !isInkling) return undefined
  const prefix = appends ? '<think>' : ''
  const staged = (): OutputParser => new StagedParser({ splitter, stage: stageOf(format, request, demanded), callsMax, prefix })
  return isInkling ? () => new InklingParser(staged()) : staged
}

function stageOf(format: ToolFormat | undefined, request: ParseRequest, demanded: boolean): TextStage {
  const stage = format === undefined ? plainStage : new ToolScanner(format, request.tools, !demanded)
  return demanded ? new GuidedCalls(request.toolChoice, stage) : stage
}

/** A thought that is switched off may still begin with its marker, which is dropped. */
const leadingStart = ({ starts }: ReasoningFormat): ReasoningFormat => ({ starts: [], ends: starts, beginsInside: false })

function splitterOf(names: ParserNames, request: ParseRequest): SplitterChoice | null {
  const format = names.reasoning === null ? undefined : reasoningFormats[names.reasoning]
  if (format === undefined) return null
  if (!isThinkingOn(format, request.templateArguments)) {
    return format.dropsStartWhenOff === true ? { format: leadingStart(format), within: false, started: false, jsonIsAnswer: false } : null
  }
  const prompt = request.prompt.trimEnd()
  const opened = format.neverInPrompt !== true && format.starts.some((start) => prompt.endsWith(start.trimEnd()))
  return { format, within: format.beginsInside || opened, started: opened, jsonIsAnswer: request.guided || (request.tools.length > 0 && request.toolChoice !== 'none' && request.toolChoice !== 'auto') }
}
