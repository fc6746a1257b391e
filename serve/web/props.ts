// What the server says of itself at /props: the model's hierarchy and what its caches hold.

export interface Span {
  kind: "global" | "window" | "block" | "chunk" | "stream";
  size?: number;
}

export interface Level {
  chunk_size: number;
  converter_len: number;
  encoder_span: Span;
  decoder_span: Span;
}

export interface KvCost {
  bytes_per_token: number;
  bytes_constant: number;
}

export interface Props {
  model: string;
  levels: Level[];
  bos_token_id: number;
  n_ctx: number;
  parameters: number;
  protocols: string[];
  kv: Record<string, KvCost>;  // by protocol, and "vanilla": a Transformer of equal size
}

/** What the caches of one text hold after so many tokens. */
export function kvBytes(cost: KvCost, tokens: number): number {
  return cost.bytes_constant + cost.bytes_per_token * tokens;
}

/** What a protocol does, in a few words. */
export function protocolNote(protocol: string, props: Props | null): string {
  if (props?.levels.length === 0) return "a Transformer: every token stays in its cache";
  if (protocol === "recgen") return "recursive: decoders unroll on their own output, only the top stream is kept";
  return "exact: each finished chunk is encoded again, bottom-up";
}
