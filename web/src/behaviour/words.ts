// The words of this part of the page, in English and Chinese, as in ../words.ts.
import type { Words } from "../language";
import { filled } from "../words";

const words = {
  // Tabs
  tabs: { en: "What to look at", zh: "查看内容" },
  "tab.layer": { en: "Layer", zh: "层" },
  "tab.mistakes": { en: "Behaviour", zh: "表现" },
  "tab.activations": { en: "Activations", zh: "激活" },
  "tab.draw": { en: "Draw", zh: "手写" },
  "tab.train": { en: "Train", zh: "训练" },

  // Data
  data: { en: "Data", zh: "数据" },
  noData: { en: "No data yet: give some to see what the model does.", zh: "还没有数据：提供一些，看看模型的表现。" },
  reading: { en: "Reading…", zh: "正在读取…" },
  digits: { en: "Built-in digits", zh: "内置手写数字" },
  "source.digits": { en: "Digits made here", zh: "此处生成的数字" },
  "source.linear": { en: "A noisy linear function", zh: "带噪声的线性函数" },
  sampleCount: { en: "1 sample", zh: "1 个样本" },
  samplesCount: { en: "{n} samples", zh: "{n} 个样本" },
  classesCount: { en: "{n} classes", zh: "{n} 个类别" },
  targetsCount: { en: "targets: {n}", zh: "目标值：{n}" },
  featuresCount: { en: "features: {n}", zh: "特征：{n}" },
  unlabelled: { en: "no labels", zh: "无标签" },
  dataKind: { en: "What is made", zh: "生成什么" },
  dataSeed: { en: "Seed", zh: "随机种子" },
  dataNumber: { en: "Samples", zh: "样本数" },
  pickFiles: { en: "Files…", zh: "文件…" },
  pickFolder: { en: "Folder…", zh: "文件夹…" },
  pickHint: {
    en: "IDX (.gz), npz, npy, CSV, images in folders named by class, or a zip of them. Drop them anywhere.",
    zh: "IDX（.gz）、npz、npy、CSV、按类别分文件夹的图像或其 zip 包，可拖到任意位置。",
  },
  removeData: { en: "Remove the data", zh: "移除数据" },
  dataDetails: { en: "Splits and preparation", zh: "划分与预处理" },
  splits: { en: "Splits", zh: "划分" },
  "split.training": { en: "training", zh: "训练" },
  "split.validation": { en: "validation", zh: "验证" },
  "split.test": { en: "test", zh: "测试" },
  "split.calibration": { en: "calibration", zh: "校准" },
  "split.all": { en: "all", zh: "全部" },
  preparation: { en: "Preparation", zh: "预处理" },
  preparationFormula: { en: "input = (stored × scale − mean) / std", zh: "输入 =（存储值 × 缩放 − 均值）/ 标准差" },
  scale: { en: "Scale", zh: "缩放" },
  mean: { en: "Mean", zh: "均值" },
  std: { en: "Std", zh: "标准差" },
  layout: { en: "Layout", zh: "布局" },
  "layout.features": { en: "features", zh: "特征" },
  "layout.hw": { en: "height, width", zh: "高、宽" },
  "layout.chw": { en: "channels first", zh: "通道在前" },
  "layout.hwc": { en: "channels last", zh: "通道在后" },
  guessAgain: { en: "Find it again", zh: "重新推断" },
  yourPreparation: { en: "as you wrote it", zh: "按您的设置" },
  badNumbers: { en: "numbers with commas between them; std not 0", zh: "用逗号分隔的数字；标准差不能为 0" },

  // Headline and summary
  accuracy: { en: "Accuracy", zh: "准确率" },
  loss: { en: "Loss", zh: "损失" },
  meanSquared: { en: "Mean squared error", zh: "均方误差" },
  agreement: { en: "Agreement", zh: "一致率" },
  agreementHint: { en: "samples with the same class as before", zh: "类别与之前相同的样本" },
  points: { en: "{n} points", zh: "{n} 个百分点" },
  samplesMore: { en: "{n} more samples wrong", zh: "多错 {n} 个样本" },
  sampleMore: { en: "1 more sample wrong", zh: "多错 1 个样本" },
  samplesFewer: { en: "{n} fewer samples wrong", zh: "少错 {n} 个样本" },
  sampleFewer: { en: "1 fewer sample wrong", zh: "少错 1 个样本" },
  asManyWrong: { en: "as many wrong as before", zh: "错误数与之前相同" },
  judgedBy: { en: "Judged by", zh: "评判数据" },
  useAll: { en: "Use all", zh: "使用全部" },
  usedOf: { en: "{n} of {all} samples", zh: "{all} 个样本中的 {n} 个" },
  comparing: { en: "Comparing…", zh: "正在比较…" },
  cannotRunShort: { en: "this model cannot be run here", zh: "此处无法运行该模型" },
  cannotRun: { en: "This model cannot be run here:", zh: "此处无法运行该模型：" },
  needData: {
    en: "Choose data above to see accuracy, mistakes and activations.",
    zh: "请在上方选择数据，以查看准确率、错误与激活。",
  },
  needLabels: { en: "These data have no labels, so there is no accuracy.", zh: "这些数据没有标签，因此没有准确率。" },
  before: { en: "before", zh: "压缩前" },
  after: { en: "after", zh: "压缩后" },

  // Mistakes
  confusion: { en: "Confusion", zh: "混淆矩阵" },
  confusionHint: {
    en: "Rows are true classes, columns what the model says. The diagonal is right.",
    zh: "行是真实类别，列是模型的判断。对角线为正确。",
  },
  confusionChange: {
    en: "After minus before: orange more often, blue-gray less often.",
    zh: "压缩后减压缩前：橙色为增多，蓝灰色为减少。",
  },
  "matrix.before": { en: "Before", zh: "压缩前" },
  "matrix.after": { en: "After", zh: "压缩后" },
  "matrix.change": { en: "Change", zh: "变化" },
  confusionSummary: {
    en: "Confusion matrix of {n} classes: {right} of {all} samples are right. Most frequent mistake: {worst}.",
    zh: "{n} 类的混淆矩阵：{all} 个样本中 {right} 个正确。最常见的错误：{worst}。",
  },
  noMistake: { en: "none", zh: "无" },
  mistakeOf: { en: "{truth} taken for {said}, {n} times", zh: "{truth} 被认作 {said}，{n} 次" },
  cellOf: { en: "true {truth}, said {said}: {n}", zh: "真实 {truth}，判断 {said}：{n}" },
  trueClass: { en: "True class", zh: "真实类别" },
  saidClass: { en: "The model says", zh: "模型的判断" },
  flips: { en: "Flipped samples", zh: "翻转的样本" },
  flipsHint: {
    en: "Samples that changed their class: above the true class, below what the model said before and says now, with its confidence. Click one to look inside.",
    zh: "类别改变的样本：上方为真实类别，下方为模型之前与现在的判断及置信度。点击可查看内部。",
  },
  "flip.worse": { en: "Newly wrong", zh: "新增错误" },
  "flip.better": { en: "Newly right", zh: "新增正确" },
  "flip.other": { en: "Other", zh: "其他" },
  noFlips: { en: "None.", zh: "没有。" },
  nothingFlipped: {
    en: "No sample changed its class. Fewer bits will change that.",
    zh: "没有样本改变类别。降低位数就会看到变化。",
  },
  more: { en: "Show more", zh: "显示更多" },
  sampleIs: { en: "Sample {index}, true class {truth}", zh: "样本 {index}，真实类别 {truth}" },
  sampleOnly: { en: "Sample {index}", zh: "样本 {index}" },
  lookInside: { en: "Look inside: activations of sample {index}", zh: "查看内部：样本 {index} 的激活" },

  // Activations
  through: { en: "Error through the net", zh: "误差如何穿过网络" },
  throughHint: {
    en: "SQNR of each layer's weights and of what comes out of it. Weights lose alone, activations lose together. Click one to see it.",
    zh: "各层权重及其输出的 SQNR。权重的误差各自独立，激活的误差逐层累积。点击可查看。",
  },
  throughSummary: {
    en: "SQNR of {n} activations in order; the lowest is {low} at {name}, the last {last}.",
    zh: "按顺序给出 {n} 个激活的 SQNR；最低为 {low}（{name}），最后为 {last}。",
  },
  weightsKey: { en: "weights", zh: "权重" },
  activationKey: { en: "activation", zh: "激活" },
  value: { en: "Value", zh: "值" },
  exact: { en: "exact", zh: "无损" },
  maps: { en: "One sample, one layer", zh: "单个样本，单个层" },
  mapsHint: {
    en: "Each tile is a channel. All share one scale; the difference is drawn {times} times stronger.",
    zh: "每个小图是一个通道，共用同一色阶；差值放大 {times} 倍显示。",
  },
  mapsVector: {
    en: "Each bar is one number, before and after side by side.",
    zh: "每根柱子是一个数，压缩前后并排显示。",
  },
  mapsSummary: {
    en: "{name} of sample {index}, {shape}; largest value {most}, largest difference {difference}.",
    zh: "样本 {index} 的 {name}，{shape}；最大值 {most}，最大差值 {difference}。",
  },
  difference: { en: "difference", zh: "差值" },
  firstChannels: { en: "The first {n} of {all} channels", zh: "前 {n} 个通道（共 {all} 个）" },
  sample: { en: "Sample", zh: "样本" },
  previousSample: { en: "Previous sample", zh: "上一个样本" },
  nextSample: { en: "Next sample", zh: "下一个样本" },
  channel: { en: "Channel", zh: "通道" },
  numbers: { en: "The numbers", zh: "查看数据" },
  mean_abs: { en: "Mean size of each channel", zh: "各通道的平均大小" },

  // Draw
  draw: { en: "Draw a digit", zh: "写一个数字" },
  drawHint: {
    en: "With mouse, pen or finger; or take a sample. It is centred and scaled as MNIST's digits are.",
    zh: "用鼠标、触控笔或手指书写，或取一个样本。图像会像 MNIST 那样居中并缩放。",
  },
  pad: { en: "Drawing pad, 28 by 28 pixels", zh: "手写板，28 × 28 像素" },
  clear: { en: "Clear", zh: "清除" },
  takeSample: { en: "Take a sample", zh: "取一个样本" },
  samplesNotDigits: {
    en: "The samples of these data are not pictures of 28 by 28 pixels, so none can be put here.",
    zh: "这些数据的样本不是 28 × 28 像素的图像，因此无法放到这里。",
  },
  guesses: { en: "What the model says", zh: "模型的判断" },
  guessesHint: { en: "Probability of each class.", zh: "各类别的概率。" },
  guessesSummary: {
    en: "Before: {before} with {beforeShare}. After: {after} with {afterShare}.",
    zh: "压缩前：{before}，{beforeShare}。压缩后：{after}，{afterShare}。",
  },
  drawFirst: { en: "Nothing drawn yet.", zh: "还没有写。" },
  asSeen: { en: "What the model sees", zh: "模型看到的" },
  class: { en: "Class", zh: "类别" },
  notDigits: {
    en: "This model does not take pictures of 28 by 28 pixels, so there is nothing to draw for it.",
    zh: "该模型不接受 28 × 28 像素的图像，因此无法手写。",
  },

  // Train
  trainTitle: { en: "Train", zh: "训练" },
  trainFrom: { en: "Start from", zh: "起点" },
  "from.result": { en: "the compressed model", zh: "压缩后的模型" },
  "from.original": { en: "the opened model", zh: "打开的模型" },
  "from.new": { en: "new: {name}", zh: "新建：{name}" },
  weightsSeed: { en: "Seed of the first weights", zh: "初始权重的随机种子" },
  start: { en: "Start training", zh: "开始训练" },
  startAgain: { en: "Start again", zh: "重新开始" },
  pause: { en: "Pause", zh: "暂停" },
  resume: { en: "Go on", zh: "继续" },
  stop: { en: "Stop", zh: "停止" },
  use: { en: "Use it", zh: "采用" },
  useHint: {
    en: "The trained model becomes the page's model, and the recipe is run on it.",
    zh: "训练后的模型将成为页面的模型，并对其运行配方。",
  },
  saveTrained: { en: "Download it", zh: "下载模型" },
  "phase.starting": { en: "Starting…", zh: "正在启动…" },
  "phase.running": { en: "Training", zh: "训练中" },
  "phase.paused": { en: "Paused", zh: "已暂停" },
  "phase.stopped": {
    en: "Stopped. The best weights so far are kept.",
    zh: "已停止，保留目前最好的权重。",
  },
  "phase.done": { en: "Done", zh: "完成" },
  epochOf: { en: "epoch {n} of {all}", zh: "第 {n} 轮，共 {all} 轮" },
  timeLeft: { en: "about {time} left", zh: "约剩 {time}" },
  lossCurve: { en: "Loss", zh: "损失" },
  lossCurveHint: {
    en: "Faint: each batch. Line: smoothed. Dots: validation after each epoch; the ring is the best.",
    zh: "淡色：每批；线：平滑后；圆点：每轮后的验证；圆环为最好的一轮。",
  },
  accuracyCurve: { en: "Accuracy", zh: "准确率" },
  accuracyCurveHint: { en: "The same for accuracy.", zh: "准确率的同类曲线。" },
  curveSummary: {
    en: "{what} over {n} batches, from {first} to {last} (smoothed); validation {validation}.",
    zh: "{n} 批的{what}，从 {first} 到 {last}（平滑后）；验证 {validation}。",
  },
  noCurve: { en: "The curve appears here when training starts.", zh: "开始训练后，曲线会显示在这里。" },
  batchesKey: { en: "batches", zh: "各批" },
  smoothedKey: { en: "smoothed", zh: "平滑" },
  validationKey: { en: "validation", zh: "验证" },
  epoch: { en: "Epoch", zh: "轮" },
  trainLoss: { en: "Training loss", zh: "训练损失" },
  validationLoss: { en: "Validation loss", zh: "验证损失" },
  validationAccuracy: { en: "Validation accuracy", zh: "验证准确率" },
  bestSoFar: {
    en: "Best so far: epoch {epoch}, validation loss {loss}",
    zh: "目前最好：第 {epoch} 轮，验证损失 {loss}",
  },
  bestWithAccuracy: {
    en: "Best so far: epoch {epoch}, validation loss {loss}, accuracy {accuracy}",
    zh: "目前最好：第 {epoch} 轮，验证损失 {loss}，准确率 {accuracy}",
  },
  trainNeedsData: { en: "Choose data above to learn from.", zh: "请在上方选择用于学习的数据。" },

  // Causes
  causeFell: {
    en: "Accuracy fell {points} points ({n}); of all layers, what comes out of {name} suffers most: {db}.",
    zh: "准确率下降 {points} 个百分点（{n}）；各层中 {name} 的输出受损最重：{db}。",
  },
  causeFellPlain: { en: "Accuracy fell {points} points ({n}).", zh: "准确率下降 {points} 个百分点（{n}）。" },
  causeRose: {
    en: "Accuracy rose {points} points ({n}): the samples that flipped happened to flip the right way.",
    zh: "准确率上升 {points} 个百分点（{n}）：翻转的样本恰好翻向了正确的一边。",
  },
  causeHealed: {
    en: "Accuracy rose {points} points ({n}): the recipe trains.",
    zh: "准确率上升 {points} 个百分点（{n}）：配方中含有训练。",
  },
  causeNothingFlipped: {
    en: "Nothing flipped: all {n} samples keep the class they had.",
    zh: "没有翻转：全部 {n} 个样本的类别与之前相同。",
  },
  causeFlippedEven: {
    en: "{n} samples changed their class, as many for the better as for the worse.",
    zh: "{n} 个样本改变了类别，变好与变坏一样多。",
  },
  causeFirstBelow: {
    en: "The first layer whose output falls below 20 dB is {name} ({db}); its weights have {weights}.",
    zh: "输出首先低于 20 dB 的层是 {name}（{db}）；其权重为 {weights}。",
  },
  causeFirstBelowPlain: {
    en: "The first value that falls below 20 dB is {name} ({db}).",
    zh: "首先低于 20 dB 的值是 {name}（{db}）。",
  },
  causeAllAbove: {
    en: "Every activation stays above 20 dB; the last one has {db}.",
    zh: "所有激活都高于 20 dB；最后一个为 {db}。",
  },
  causeInherited: {
    en: "{name} has good weights ({weights}) and bad output ({db}): its error comes from the layers before it.",
    zh: "{name} 的权重良好（{weights}）而输出很差（{db}）：误差来自它前面的层。",
  },
  causeFew: {
    en: "{n} samples tell accuracy to about ± {points} points; a smaller change may be chance.",
    zh: "{n} 个样本只能把准确率确定到约 ± {points} 个百分点；更小的变化可能是偶然。",
  },
} satisfies Record<string, Words>;

export type Key = keyof typeof words;

/** The text for `key` in the language shown now, its places filled. */
export const tb = (key: Key, places?: Record<string, string | number>): string => filled(words[key], places);

/** For tests: every text in every language. */
export const behaviourWords: Record<string, Words> = words;
