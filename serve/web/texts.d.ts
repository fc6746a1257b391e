// Text files that esbuild puts into a script.
declare module "*.md" {
  const text: string;
  export default text;
}
