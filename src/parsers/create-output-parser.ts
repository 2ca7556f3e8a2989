/** Which parser reads the output of a request: by the names on the model's card, the tools and the choice among them. */
import { HermesParser } from './hermes.ts'
import type { OutputParser, ParseRequest, ParserNames } from './output-parser.ts'

/** Makes the parser of one answer; undefined when the output is plain text. */
export function outputParserMaker(names: ParserNames, request: ParseRequest): (() => OutputParser) | undefined {
  const reads = request.tools.length > 0 && request.toolChoice !== 'none'
  if (reads && names.toolCall === 'hermes') return () => new HermesParser()
  return undefined
}
