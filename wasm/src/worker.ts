// The script of a browser's worker.
import { serve } from "./serve";

serve(undefined, (message) => postMessage(message));
